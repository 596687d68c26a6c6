"""A trained model at work: predict, export, latency, and a real-time service."""
