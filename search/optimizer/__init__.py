"""What to try next: `PolicySpace`, `Proposer`, screening, samplers, halving, `TrialStore`."""
