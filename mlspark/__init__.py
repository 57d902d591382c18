"""mlspark: raw tables in a data lake become a trained, versioned PyTorch model and scored rows."""

__version__ = "0.1.0"
