"""Training: compare every model on every problem, log it all to MLflow, promote the best."""
