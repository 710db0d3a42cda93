"""Scores: one module a score, found by name."""
