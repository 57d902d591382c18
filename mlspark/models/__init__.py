"""What is trained: torch modules and how to build them from settings."""
