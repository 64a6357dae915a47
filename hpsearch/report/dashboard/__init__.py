"""optuna-dashboard behind an access policy, with hpsearch's own notes, plots and files."""
