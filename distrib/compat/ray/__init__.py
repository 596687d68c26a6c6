"""Private parts of Ray."""
