"""A run's progress as metrics for systems that watch clusters."""
