"""The real-time service: an HTTP server that batches requests to one trained model."""
