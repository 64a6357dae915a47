"""What a study file says, checked: components, search space, sections, and the config of one training run. Loads no torch and no Optuna."""
