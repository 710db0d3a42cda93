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

from ...analysis.jobs import single_call_job
from ...analysis.mask_ensembles import is_ensemble_name
from ...analysis.measure import MeasurementLimits
from ...spaces.policy.loss_curves import CurveSettings, required_curves
from ...spaces.policy.policy import Policy
from ...trainers.data.batches import fixed_subset
from ...trainers.metrics.evaluate import evaluate
from ...trainers.runtime.device import DeviceConfig
from ..config.settings import SearchSettings
from ..execution.executor import Executors
from ..execution.messages import LogFunction
from ..execution.ray_runtime import local_trial_concurrency
from ..storage.run_folder import RunFolder, update_config_settings
from .dense_model import DenseModelInputs

DEFAULT_ENSEMBLE_IMAGES = 16_384  # of one ensemble, unless the user says otherwise
MIN_ENSEMBLE_IMAGES = 1024
MIN_CURVE_IMAGES, ENSEMBLE_IMAGES_PER_CURVE_IMAGE = 128, 32  # of those that an ensemble may take
PASS_SHARE_PER_PROBE = 0.5  # what a probe of a loss curve takes: from the group's place on
MEASUREMENT_TIME_SHARE = 0.15  # of the minutes: what measuring evidence may take
SCREENING_DEADLINE_SHARE = (
    0.3  # of the minutes, besides dense training: when screening is to be over
)
TIMED_IMAGES = 128  # images


def with_default_images(settings: SearchSettings) -> SearchSettings:
    """With the usual number of images for an ensemble, unless the user or the time decides."""
    if settings.ensemble_images is not None or settings.max_minutes is not None:
        return settings
    return replace(settings, ensemble_images=DEFAULT_ENSEMBLE_IMAGES)


def measurement_limits(settings: SearchSettings) -> MeasurementLimits:
    """What measuring may take."""
    images = settings.ensemble_images
    for_curves = (
        None
        if images is None
        else max(MIN_CURVE_IMAGES, images // ENSEMBLE_IMAGES_PER_CURVE_IMAGE)
    )
    return MeasurementLimits(
        images, settings.ensemble_samples, settings.ensemble_seconds, for_curves
    )


def fit_images_to_time(
    dense_inputs: DenseModelInputs,
    runs: float,
    run: RunFolder,
    device_config: DeviceConfig,
    executors: Executors,
) -> DenseModelInputs:
    """The same, with as many images for evidence as --max-minutes leave time for.

    `runs`: how many times each of them is run.
    """
    settings = dense_inputs.settings
    if settings.max_minutes is None or settings.ensemble_images is not None:
        return dense_inputs
    (seconds,) = executors.dense.run(
        [single_call_job(partial(measure_seconds_per_image, device_config))], dense_inputs
    )
    images = affordable_images(settings, seconds, runs)
    if images < DEFAULT_ENSEMBLE_IMAGES:
        executors.log(
            f"evidence is measured on {images:,} images instead of {DEFAULT_ENSEMBLE_IMAGES:,}, "
            "to fit into --max-minutes"
        )
    update_config_settings(run, ensemble_images=images)
    return replace(dense_inputs, settings=replace(settings, ensemble_images=images))


def measure_seconds_per_image(
    device_config: DeviceConfig, dense_inputs: DenseModelInputs, log: LogFunction
) -> float:
    """Of running it through the dense network in float32, as probes of loss curves do."""
    split, plain = (
        fixed_subset(dense_inputs.data.train, TIMED_IMAGES),
        replace(device_config, bf16=False),
    )
    for _ in range(2):  # the first one warms up
        begin = time.perf_counter()
        evaluate(dense_inputs.model, split, dense_inputs.data, machine=plain)
    return (time.perf_counter() - begin) / len(split)


def passes_per_image(wanted: Iterable[Policy], groups: int) -> float:
    """How many times the evidence of these policies runs each of --ensemble-images."""
    policies = list(wanted)
    ensembles = sum(is_ensemble_name(name) for name in {policy.score for policy in policies})
    a_group = CurveSettings().points + CurveSettings().refine
    probes = len(required_curves(policies)) * groups * a_group
    return ensembles + probes * PASS_SHARE_PER_PROBE / ENSEMBLE_IMAGES_PER_CURVE_IMAGE


def affordable_images(settings: SearchSettings, seconds: float, runs: float) -> int:
    """A power of two, so that searches on the same machine share what they measure."""
    assert settings.max_minutes is not None
    workers = (
        local_trial_concurrency(settings) if settings.address is None else settings.workers or 1
    )
    most = 60 * MEASUREMENT_TIME_SHARE * settings.max_minutes * workers / max(seconds * runs, 1e-9)
    power = math.floor(math.log2(max(most, 1)))
    return min(max(1 << power, MIN_ENSEMBLE_IMAGES), DEFAULT_ENSEMBLE_IMAGES)
