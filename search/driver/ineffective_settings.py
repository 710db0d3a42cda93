"""Warnings about settings that have no effect, or less than one might expect."""

from __future__ import annotations

from collections.abc import Iterator

import joblib

from ...analysis.mask_ensembles import is_ensemble_name
from ...spaces.policy.policy import SCHEDULE_NAMES
from ...trainers.data.sources.load import SOURCES
from ..config.settings import SearchSettings
from ..optimizer.search_space import is_schedule_possible, registered_spaces

DOWNLOADABLE = tuple(kind for kind, home in SOURCES.items() if home == "torch_files")
SPACE_SETTINGS = ("scores", "allocations", "schedules")
ENSEMBLE_SETTINGS = ("ensemble_images", "ensemble_samples", "ensemble_seconds")


def without_effect(settings: SearchSettings, *, model_given: bool) -> Iterator[str]:
    """Yield one line for each setting without effect, before a search or a prune."""
    if settings.dense_epochs is not None and (model_given or settings.weights is not None):
        yield "--dense-epochs has no effect: the dense network is trained already"
    if settings.download and settings.data.partition(":")[0] not in DOWNLOADABLE:
        yield f"--download has no effect: it applies to {', '.join(DOWNLOADABLE)}"
    yield from without_effect_on_policies(settings)
    cores = joblib.cpu_count()
    if settings.address is None:
        if settings.workers is not None and settings.workers * settings.cpus_per_trial > cores:
            yield (
                f"--workers {settings.workers} share {cores} cores: each trial is slower than "
                "with fewer workers"
            )
        elif settings.cpus_per_trial > cores:
            yield f"--cpus-per-trial {settings.cpus_per_trial:g} is above the {cores} cores here"


def without_effect_on_policies(settings: SearchSettings) -> Iterator[str]:
    """Yield one line for each setting without effect on the policies that are sampled."""
    chosen = {name: settings.names_in(name) for name in SPACE_SETTINGS}
    if registered_spaces():
        for name in SPACE_SETTINGS:
            if chosen[name]:
                yield f"--{name} has no effect: your plugin's policy space replaces it"
        return
    allowed = chosen["allocations"]
    for schedule in chosen["schedules"] if allowed else ():
        if schedule in SCHEDULE_NAMES and not is_schedule_possible(schedule, allowed):
            yield f"--schedules: {schedule} is left out, it needs global-threshold"
    measured = not chosen["scores"] or any(map(is_ensemble_name, chosen["scores"]))
    if not measured and "loss-budget" not in (allowed or ("loss-budget",)):
        for name in ENSEMBLE_SETTINGS:
            if getattr(settings, name) is not None:
                option = name.replace("_", "-")
                yield f"--{option} has no effect: none of the --scores is of an ensemble"
