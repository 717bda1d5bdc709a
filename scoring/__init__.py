"""The REST service: champions of an MLflow registry behind HTTP."""
