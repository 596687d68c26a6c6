"""A RayJob for KubeRay."""
