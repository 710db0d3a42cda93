"""Workers that die around the trials: the search ends in one line. The door imports this."""


class WorkersDiedError(RuntimeError):
    """Every worker that had one errand died of it; the text is the one line."""
