"""The process of a rank: its device, groups, randomness and tracebacks."""
