"""Reading a finished run: selection, model folder and card, tables, report, report server."""
