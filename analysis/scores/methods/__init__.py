"""The scores themselves: one module per score, each registered by name."""
