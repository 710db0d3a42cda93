"""The networks that come with the library: one module a family."""
