"""Contracts: what raw rows must look like, checked by the same rules on Spark and on Arrow."""
