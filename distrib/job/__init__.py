"""The job spec: its schema, reader, targets and plan. Imports neither torch nor ray."""
