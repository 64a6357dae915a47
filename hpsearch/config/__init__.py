"""The content of a study file, validated, and the config of one training run. Loads no torch and no Optuna."""
