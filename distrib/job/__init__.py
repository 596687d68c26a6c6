"""What to train: the job spec, its reader, its targets and its plan. Imports neither torch nor ray."""
