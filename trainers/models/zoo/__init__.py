"""Networks of our own, one family a file; every builder takes `classes` and `channels`."""
