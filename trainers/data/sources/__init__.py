"""Data sources: `load.load_data` by name, `user.convert_user_data` from Python objects."""
