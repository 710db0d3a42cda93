"""Records of a search: `Evaluation`, `Recipe`, `Front`, `GateHistory` and the hypervolume."""
