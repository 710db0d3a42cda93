"""Allocations: pure functions from policies and scores to masks, such as `decode_policies`."""
