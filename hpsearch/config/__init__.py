"""Reads and validates study files, and makes the config of a training run. Does not load torch or Optuna."""
