"""Ready jobs: each one YAML file to run, and one small module with its model and its data."""
