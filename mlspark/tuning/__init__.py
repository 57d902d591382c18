"""Hyper-parameter search: what may be chosen, and the trials of a study."""
