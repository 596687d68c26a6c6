"""A file for Docker Compose."""
