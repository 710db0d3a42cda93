"""What of the settings has no effect beside others, or less than it seems: each in a line."""

from __future__ import annotations

from collections.abc import Iterator

import joblib

from ...analysis.mask_ensembles import is_ensemble_name
from ...spaces.policy.policy import SCHEDULE_NAMES
from ...trainers.data.sources.load import SOURCES
from ..config.settings import SearchSettings
from ..optimizer.search_space import is_schedule_possible, registered_spaces

FETCHED = tuple(kind for kind, home in SOURCES.items() if home == "torch_files")
OF_SPACE = ("scores", "allocations", "schedules")
OF_ENSEMBLES = ("ensemble_images", "ensemble_samples", "ensemble_seconds")


def without_effect(settings: SearchSettings, *, model_given: bool) -> Iterator[str]:
    """The lines to say before a search or a prune."""
    if settings.dense_epochs is not None and (model_given or settings.weights is not None):
        yield "--dense-epochs has no effect: the dense network is trained already"
    if settings.download and settings.data.partition(":")[0] not in FETCHED:
        yield f"--download has no effect: it is for {', '.join(FETCHED)}"
    yield from of_policies(settings)
    cores = joblib.cpu_count()
    if settings.address is None:
        if settings.workers is not None and settings.workers * settings.cpus_per_trial > cores:
            yield (
                f"--workers {settings.workers} share {cores} cores: trials are slower than with "
                "fewer at a time"
            )
        elif settings.cpus_per_trial > cores:
            yield f"--cpus-per-trial {settings.cpus_per_trial:g} is above the {cores} cores here"


def of_policies(settings: SearchSettings) -> Iterator[str]:
    """What says which policies are sampled."""
    words = {name: settings.names_in(name) for name in OF_SPACE}
    if registered_spaces():
        for name in OF_SPACE:
            if words[name]:
                yield f"--{name} is left to the policy space of your plugin, which holds instead"
        return
    allowed = words["allocations"]
    for schedule in words["schedules"] if allowed else ():
        if schedule in SCHEDULE_NAMES and not is_schedule_possible(schedule, allowed):
            yield f"--schedules: {schedule} is left out, it goes with global-threshold only"
    measured = not words["scores"] or any(is_ensemble_name(name) for name in words["scores"])
    if not measured and "loss-budget" not in (allowed or ("loss-budget",)):
        for name in OF_ENSEMBLES:
            if getattr(settings, name) is not None:
                option = name.replace("_", "-")
                yield f"--{option} has no effect: none of the --scores is measured so"
