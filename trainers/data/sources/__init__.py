"""Where data comes from: one module a source, found by the word before the colon."""
