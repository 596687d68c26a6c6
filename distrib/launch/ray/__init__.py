"""The Ray launcher: ranks as Ray Train workers, and jobs submitted to a Ray cluster."""
