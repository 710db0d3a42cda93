"""Making a network smaller: masks, cuts, batch-norm recalibration, refit, iterative pruning."""
