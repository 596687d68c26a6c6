"""Batch prediction: one output row for each row of a dataset, computed by several local processes."""
