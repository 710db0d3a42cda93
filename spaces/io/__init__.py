"""Files: atomic writes, size-limited reads, and records validated while they are read.

Public parts: `write_bytes_atomic`, `write_json_atomic`, `read_bounded`, `read_json` and
`record_from_json`.
"""
