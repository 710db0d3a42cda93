"""The built-in scores, one module per score; importing a module registers its score."""
