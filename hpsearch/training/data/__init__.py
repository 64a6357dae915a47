"""Data sets: find, download, verify, split, and augment images."""
