"""What it is for: rows in, predictions out."""
