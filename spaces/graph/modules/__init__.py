"""Modules that can be cut: attention with explicit heads and the option-A shortcut."""
