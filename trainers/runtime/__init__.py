"""The device and its precision, train and eval mode, code that a user names."""
