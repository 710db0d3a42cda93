"""Settings of a search, how they are read and checked, and the errors that a user sees."""
