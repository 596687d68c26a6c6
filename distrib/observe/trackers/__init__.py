"""Experiment trackers, each fed in a separate process so that none can slow down or end a training."""
