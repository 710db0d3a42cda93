"""Data: `splits.DataSplits`, `batches.iterate_batches`, image options, the disk cache, sources."""
