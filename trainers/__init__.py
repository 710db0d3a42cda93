"""Everything that runs a network: data, models, training, pruning, metrics, the runtime."""
