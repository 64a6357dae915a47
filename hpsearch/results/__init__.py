"""The reading wing: stored trials become tables, figures and files. Knows nothing of torch."""
