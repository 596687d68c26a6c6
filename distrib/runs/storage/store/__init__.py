"""Runs on an object store, each with a mirror: a local folder of the same layout on every host that works on it."""
