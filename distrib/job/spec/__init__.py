"""The job spec, section by section."""
