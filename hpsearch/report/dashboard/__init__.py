"""optuna-dashboard, with a guard before it and hpsearch's own notes, plots and files in it."""
