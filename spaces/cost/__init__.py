"""The exact cost of masks: `CostModel`, `Target` and `summarize_network`."""
