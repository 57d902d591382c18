"""How raw data comes in: one reader per kind of source."""
