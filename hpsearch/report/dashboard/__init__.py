"""Serves optuna-dashboard with an access policy, and adds notes, plots and files of hpsearch."""
