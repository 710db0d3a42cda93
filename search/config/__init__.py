"""Settings of a search and errors that end it: `SearchSettings`, `parse_setting`."""
