"""A policy and the measurements that it reads: scores, loss curves, normalisation."""
