"""Experiment trackers, each fed in a process of its own so that none can slow down or end a training."""
