"""Linear filter ensembles: what their scores are worth, how far they can be trusted."""
