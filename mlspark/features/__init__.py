"""What a row becomes: split, encoder on Spark, the same encoder on Arrow."""
