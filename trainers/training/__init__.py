"""Training: the loop, its session, optimiser, distillation, checkpoints, several processes."""
