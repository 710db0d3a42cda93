"""What all measurements share: the measured network, and jobs that run in stages."""

from .measured_network import MeasuredNetwork
from .staged_jobs import (
    PendingCall,
    StagedJob,
    StageQueue,
    map_calls,
    run_jobs_serially,
    single_call_job,
)

__all__ = [
    "MeasuredNetwork",
    "PendingCall",
    "StageQueue",
    "StagedJob",
    "map_calls",
    "run_jobs_serially",
    "single_call_job",
]
