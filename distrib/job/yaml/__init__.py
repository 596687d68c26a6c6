"""The YAML of a job spec: parsed with the line and column of every value."""
