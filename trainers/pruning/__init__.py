"""Pruning: `masked`, `prune_network`, `recalibrate_batch_norm`, `refit_least_squares`, gates."""
