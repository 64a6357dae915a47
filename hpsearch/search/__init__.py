"""The optuna wing: sampling, pruning, workers and budgets. Knows nothing of torch."""
