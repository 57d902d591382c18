"""From sources to good rows: read, checked against the contract, accounted for, joined."""
