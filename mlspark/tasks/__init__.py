"""What is predicted: one frozen class per kind of task, declared in YAML and resolved from the training rows."""
