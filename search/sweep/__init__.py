"""Many searches: the file that describes them, the runner, its state."""
