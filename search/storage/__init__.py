"""The durable record of a run: run folder, journal, trial records, artifacts."""
