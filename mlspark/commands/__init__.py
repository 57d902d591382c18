"""The command lines: one file for each command of `mlspark`, and what the jobs' lines share."""
