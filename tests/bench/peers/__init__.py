"""The same jobs as others would run them: scripts, each written as that tool's own tutorial shows it."""
