"""Runs in a local folder."""
