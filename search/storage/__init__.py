"""The durable record of a run: `RunFolder`, the Optuna journal, `TrialRecords`, artifacts."""
