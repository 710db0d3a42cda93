"""Policies and the measurements that they read: `Policy`, `Measurements` and `LossCurves`."""
