"""From a dataset to the batches of each rank."""
