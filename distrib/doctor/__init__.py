"""Preflight checks: what would keep a job from starting, or slow it down, found before it is started."""
