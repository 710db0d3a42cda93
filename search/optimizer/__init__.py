"""What to try next: search space, proposer, screening, samplers, halving, trial store."""
