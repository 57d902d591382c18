"""Trainer (one rank), checkpoint, metrics; launcher (all ranks)."""
