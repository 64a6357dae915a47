"""Everything that uses torch: data, models, optimizers and the trainer. Does not use Optuna, storage or search."""
