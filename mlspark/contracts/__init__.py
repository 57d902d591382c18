"""What the world gives us must be: contracts, and the same rules on Spark and on Arrow."""
