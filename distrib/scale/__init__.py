"""Scaling experiments: how a job scales, why, and what it would do on more workers."""
