"""Training: data, models, optimizers, checkpoints and the training loop. Does not use Optuna, the storage or the search."""
