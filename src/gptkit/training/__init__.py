"""Training: the loop, optimizers, schedules, checkpoints and run directories. It knows no task, model or screen."""
