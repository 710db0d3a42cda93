"""Records of a search: evaluation, recipe, Pareto front, hypervolume."""
