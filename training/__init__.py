"""Training: compare every algorithm on every problem, log it all to MLflow, promote the best model."""
