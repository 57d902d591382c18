"""Example data: fetched from its publisher, or generated."""
