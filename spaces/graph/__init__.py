"""The channel map: which channels of a network can be removed, and which only together.

Public parts: `make_working_copy`, `trace_channel_map`, `ChannelMap`, `slice_layers`,
`reduce_channel_map` and `Layout`. Imports go trace > verify > atoms, slicing > rules > modules,
labels.
"""
