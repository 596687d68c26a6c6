"""The files that `distrib init` writes."""
