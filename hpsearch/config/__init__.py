"""The content of a study file, validated: components, search space, sections. Also the config of one training run. Loads no torch and no Optuna."""
