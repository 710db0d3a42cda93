"""One request from settings to result: a search, one policy, a sensitivity analysis."""
