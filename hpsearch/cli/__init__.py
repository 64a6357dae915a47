"""The command line: one module for each group of commands, and the views that they print."""
