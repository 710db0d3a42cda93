"""Measurements of a trained network (scores, mask ensembles, loss curves) and the report."""
