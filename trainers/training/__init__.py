"""Training: `loop.train_model`, `session.TrainingSession`, checkpoints, distillation, DDP."""
