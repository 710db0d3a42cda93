"""Measuring a network: accuracy and loss, multiply-adds, latency."""
