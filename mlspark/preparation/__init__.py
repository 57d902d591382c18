"""The prepare stage: raw rows become a feature table version, every row accounted for."""
