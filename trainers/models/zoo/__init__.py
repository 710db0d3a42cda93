"""The model zoo: one family per file; every builder takes `classes` and `channels`."""
