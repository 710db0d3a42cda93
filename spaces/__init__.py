"""What can be removed, what it costs, which policies exist."""
