"""Rules of the trace: how operations and layers carry channel labels."""
