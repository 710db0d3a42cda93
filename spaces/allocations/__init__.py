"""Allocations: pure functions from scores to a mask."""
