"""Training: data, models, optimizers, checkpoints and the training loop. Does not know Optuna, the storage or the search."""
