"""Runs: what they consist of, and where they are kept."""
