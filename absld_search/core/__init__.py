"""What happens inside one training. Torch, and neither Ray, Optuna nor MLflow."""
