"""After the front: the full fine-tune, export, training of a dense baseline."""
