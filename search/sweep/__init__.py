"""Many searches: `read_sweep_file`, `sweep_command` and `SweepState`."""
