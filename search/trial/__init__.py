"""One trial in a worker: its context, schedules, training budget and memory retries.

Public: `execute_trial` (execute), `TrialContext` (context), `SCHEDULES` (schedules).
"""
