"""The channel map: which channels of a network can be removed, and only together."""
