"""Looking at a run while it goes and when it is over."""
