"""What comes before the trials, made to fit into --max-minutes.

Evidence is measured on fewer images, screening stops early; the trials are to get most of the
time. How many images that are is kept in config.json: a resumed run reads the same evidence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from ...analysis.mask_ensembles import is_ensemble
from ...analysis.measure import Limits
from ...analysis.staged_jobs import single
from ...spaces.policy.loss_curves import CurveSettings, curves_wanted
from ...spaces.policy.policy import Policy
from ...trainers.data.batches import draw
from ...trainers.metrics.evaluate import evaluate
from ...trainers.runtime.device import Machine
from ..config.settings import SearchSettings
from ..execution.executor import Crew
from ..execution.messages import Say
from ..execution.ray_runtime import slots_of
from ..storage.run_folder import RunFolder, keep_settings
from .dense_model import Untrained

ENSEMBLE_IMAGES = 16_384  # of one ensemble, unless the user says otherwise
LEAST_IMAGES = 1024
LEAST_CURVE_IMAGES, PER_CURVE_IMAGE = 128, 32  # of those that an ensemble may take
OF_A_PASS = 0.5  # what a probe of a loss curve takes: from the group's place on
EVIDENCE = 0.15  # of the minutes: what measuring evidence may take
SCREENING = 0.3  # of the minutes, besides dense training: when screening is to be over
TIMED = 128  # images


def with_images(settings: SearchSettings) -> SearchSettings:
    """With the usual number of images for an ensemble, unless the user or the time decides."""
    if settings.ensemble_images is not None or settings.max_minutes is not None:
        return settings
    return replace(settings, ensemble_images=ENSEMBLE_IMAGES)


def limits_of(settings: SearchSettings) -> Limits:
    """What measuring may take."""
    images = settings.ensemble_images
    for_curves = None if images is None else max(LEAST_CURVE_IMAGES, images // PER_CURVE_IMAGE)
    return Limits(images, settings.ensemble_samples, settings.ensemble_seconds, for_curves)


def affordable(
    on: Untrained, runs: float, run: RunFolder, machine: Machine, crew: Crew
) -> Untrained:
    """The same, with as many images for evidence as --max-minutes leave time for.

    `runs`: how many times each of them is run.
    """
    settings = on.settings
    if settings.max_minutes is None or settings.ensemble_images is not None:
        return on
    (seconds,) = crew.dense.do([single(partial(seconds_an_image, machine))], on)
    images = images_that_fit(settings, seconds, runs)
    if images < ENSEMBLE_IMAGES:
        crew.say(
            f"evidence is measured on {images:,} images instead of {ENSEMBLE_IMAGES:,}, "
            "to fit into --max-minutes"
        )
    keep_settings(run, ensemble_images=images)
    return replace(on, settings=replace(settings, ensemble_images=images))


def seconds_an_image(machine: Machine, on: Untrained, say: Say) -> float:
    """Of running it through the dense network in float32, as probes of loss curves do."""
    split, plain = draw(on.data.train, TIMED), replace(machine, bf16=False)
    for _ in range(2):  # the first one warms up
        begin = time.perf_counter()
        evaluate(on.model, split, on.data, machine=plain)
    return (time.perf_counter() - begin) / len(split)


def runs_an_image(wanted: Iterable[Policy], groups: int) -> float:
    """How many times the evidence of these policies runs each of --ensemble-images."""
    policies = list(wanted)
    ensembles = sum(is_ensemble(name) for name in {policy.score for policy in policies})
    a_group = CurveSettings().points + CurveSettings().refine
    probes = len(curves_wanted(policies)) * groups * a_group
    return ensembles + probes * OF_A_PASS / PER_CURVE_IMAGE


def images_that_fit(settings: SearchSettings, seconds: float, runs: float) -> int:
    """A power of two, so that searches on the same machine share what they measure."""
    assert settings.max_minutes is not None
    workers = slots_of(settings) if settings.address is None else settings.workers or 1
    most = 60 * EVIDENCE * settings.max_minutes * workers / max(seconds * runs, 1e-9)
    power = math.floor(math.log2(max(most, 1)))
    return min(max(1 << power, LEAST_IMAGES), ENSEMBLE_IMAGES)
