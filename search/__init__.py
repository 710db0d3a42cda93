"""Who decides: sampling, trials, Ray Tune, the ledger, the command line."""
