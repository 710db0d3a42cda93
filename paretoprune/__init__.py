"""ParetoPrune: the Pareto front of accuracy against FLOPs and parameters, for any network."""
