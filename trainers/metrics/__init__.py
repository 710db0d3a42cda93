"""Metrics of a network: `evaluate`, `count_macs_and_params`, `measure_latency`."""
