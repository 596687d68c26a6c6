"""What this launcher costs beside others, as ratios: `python -m tests.bench`."""
