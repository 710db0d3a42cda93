"""One trial in a worker: its context, schedules, training budget and memory retries."""
