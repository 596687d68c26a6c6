"""Processes on one machine: starting them, signals, their output and environment."""
