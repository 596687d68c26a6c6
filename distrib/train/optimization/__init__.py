"""How parameters are updated: optimizers, schedules, precision, the step."""
