"""A project of one's own from a CSV file: what its columns are, what is drafted from them, its files. Starts no Spark."""
