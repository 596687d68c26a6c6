"""A session in a script: the loop is the script's own, all else is that of any training."""
