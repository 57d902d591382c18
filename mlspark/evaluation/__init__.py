"""What a trained model said of held-out rows, kept row by row."""
