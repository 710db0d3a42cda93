"""Who judges: scores, evidence, front, report."""
