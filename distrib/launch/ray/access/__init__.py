"""Who may use a Ray cluster, and how secrets reach a job on it."""
