"""Whether the ranks keep up with each other and hold the same state."""
