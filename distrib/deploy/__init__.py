"""Rendering a job for systems that start clusters: KubeRay, Slurm, Docker Compose."""
