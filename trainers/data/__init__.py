"""Splits of images with labels, batches, augmentation, streaming and the cache."""
