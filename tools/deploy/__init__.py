"""Manifests of deploy/: put together, checked against the published API models, and their resources added up."""
