"""What the launcher sees of ranks that run: where they stand, whether they hang, their stacks, and why one failed."""
