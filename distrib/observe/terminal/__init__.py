"""Runs, plans and results as text: on a terminal, in a pipe or in a log."""
