"""Runs in MLflow: the one place, besides the registry, that knows it."""
