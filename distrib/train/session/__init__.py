"""What the job's own code sees of a training: the public training API."""
