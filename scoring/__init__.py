"""Champions of an MLflow registry, behind HTTP and for the app."""
