"""The command lines: one file for each command of `mlspark`, and what the jobs' lines share."""

from mlspark.commands.quick_python import prefer_installed_spark

prefer_installed_spark()
