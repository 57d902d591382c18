"""Pictures: what they must be, decoded and resized by one decoder everywhere, augmented. Runs anywhere; needs no Spark."""
