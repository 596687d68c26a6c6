"""What is minimized and measured: the task, its losses and their weights, metrics, evaluation."""
