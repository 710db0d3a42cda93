"""Holistic filter pruning: one trained gate an atom, pulled to an exact size while training."""
