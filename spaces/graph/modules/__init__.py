"""Modules whose channels or heads can be cut: explicit attention and the option-A shortcut."""
