"""Scripts that torchrun could run: each rank runs the script as `__main__`, with torchrun's environment."""
