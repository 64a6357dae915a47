"""The torch wing: data, models, optimizers and the trainer. Knows nothing of Optuna, storage or search."""
