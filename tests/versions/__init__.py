"""Tries the suite with other versions of Python, torch and Ray: `python -m tests.versions`, or `make test-versions`."""
