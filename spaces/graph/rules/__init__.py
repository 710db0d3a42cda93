"""Rules of the trace: how layers and operations propagate channel labels.

Public parts: `propagate_labels` for operations and `record_layer_call` for layers.
"""
