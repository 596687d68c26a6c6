"""Trainers of Ray Train: their workers, and the run that they are part of."""
