"""The exact cost of a mask, targets, and the summary of a network."""
