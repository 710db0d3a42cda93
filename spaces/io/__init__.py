"""Files: atomic writes, bounded reads, validated records."""
