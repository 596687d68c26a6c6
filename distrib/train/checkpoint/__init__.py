"""Checkpoints and weight files: written, committed, restored and uploaded."""
