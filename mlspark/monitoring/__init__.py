"""Whether scored rows, scores and late labels are still like those that a version was trained and tried on."""
