"""Jobs that are sent to a Ray cluster, which runs the command there."""
