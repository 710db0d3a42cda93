"""Holistic filter pruning: `trainer.train_gates` trains one gate per atom to an exact size."""
