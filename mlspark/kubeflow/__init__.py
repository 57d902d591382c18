"""The stages of a pipeline as one of Kubeflow Pipelines, run here or on its cluster."""
