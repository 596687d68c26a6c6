"""Private APIs of other libraries that distrib relies on, one module per library."""
