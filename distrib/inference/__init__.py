"""Using a trained model: predict a dataset, export, measure latency, serve over HTTP."""
