"""The local launcher: one process per rank on this machine."""
