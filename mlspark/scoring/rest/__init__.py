"""Versions behind HTTP: rows in, predictions or refusals out. Needs the extra `rest`, and no Spark."""
