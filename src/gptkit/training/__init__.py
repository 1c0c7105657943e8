"""Training: loop, optimizers, schedules, checkpoints, run directories; knows nothing of tasks, models or displays."""
