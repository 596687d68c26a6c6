"""Parses the YAML of a job spec and keeps the source line of every value."""
