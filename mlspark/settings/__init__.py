"""A pipeline's settings as a whole: the sections together, from YAML files, with errors that name the remedy."""
