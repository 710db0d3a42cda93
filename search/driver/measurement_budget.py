"""The budget of measurements: how many images they use, so that they fit into --max-minutes.

Most of the time is for the trials. The number of images is kept in config.json, so that a resumed
run reads the same measurements.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
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
from ..execution.progress_messages import LogFunction
from ..execution.ray_runtime import local_trial_concurrency
from ..storage.run_folder import RunFolder, update_config_settings
from .dense_model import DenseModelInputs

DEFAULT_ENSEMBLE_IMAGES = 16_384  # of one ensemble
MIN_ENSEMBLE_IMAGES = 1024
MIN_CURVE_IMAGES, ENSEMBLE_IMAGES_PER_CURVE_IMAGE = 128, 32
PASS_SHARE_PER_PROBE = 0.5  # a probe of a loss curve runs the layers from its group on
MEASUREMENT_TIME_SHARE = 0.15  # of --max-minutes
SCREENING_DEADLINE_SHARE = 0.3  # of --max-minutes: screening ends then; without dense training
TIMED_IMAGES = 128


def with_default_images(settings: SearchSettings) -> SearchSettings:
    """Set the default number of ensemble images, unless the user or --max-minutes decides it."""
    if settings.ensemble_images is not None or settings.max_minutes is not None:
        return settings
    return replace(settings, ensemble_images=DEFAULT_ENSEMBLE_IMAGES)


def measurement_limits(settings: SearchSettings) -> MeasurementLimits:
    """Return the limits of measurements that the settings imply."""
    images = settings.ensemble_images
    curve_images = None
    if images is not None:
        curve_images = max(MIN_CURVE_IMAGES, images // ENSEMBLE_IMAGES_PER_CURVE_IMAGE)
    return MeasurementLimits(
        images, settings.ensemble_samples, settings.ensemble_seconds, curve_images
    )


def fit_images_to_time(
    dense_inputs: DenseModelInputs,
    passes: float,
    run: RunFolder,
    device_config: DeviceConfig,
    executors: Executors,
) -> DenseModelInputs:
    """Set the number of ensemble images to what --max-minutes leaves time for.

    `passes` is how often measurements run each image through the network.
    """
    settings = dense_inputs.settings
    if settings.max_minutes is None or settings.ensemble_images is not None:
        return dense_inputs
    (seconds,) = executors.dense.run(
        [single_call_job(partial(measure_seconds_per_image, device_config))], dense_inputs
    )
    images = affordable_images(settings, seconds, passes)
    if images < DEFAULT_ENSEMBLE_IMAGES:
        executors.log(
            f"measurements use {images:,} images instead of {DEFAULT_ENSEMBLE_IMAGES:,} to fit "
            "into --max-minutes"
        )
    update_config_settings(run, ensemble_images=images)
    return replace(dense_inputs, settings=replace(settings, ensemble_images=images))


def measure_seconds_per_image(
    device_config: DeviceConfig, dense_inputs: DenseModelInputs, log: LogFunction
) -> float:
    """Return the seconds of one image through the dense model in float32, as in loss curves."""
    split = fixed_subset(dense_inputs.data.train, TIMED_IMAGES)
    float32 = replace(device_config, bf16=False)
    for _ in range(2):  # the first one warms up
        begin = time.perf_counter()
        evaluate(dense_inputs.model, split, dense_inputs.data, machine=float32)
    return (time.perf_counter() - begin) / len(split)


def passes_per_image(policies: Sequence[Policy], groups: int) -> float:
    """Return how often the measurements of the policies run each ensemble image."""
    ensembles = sum(is_ensemble_name(name) for name in {policy.score for policy in policies})
    probes_per_group = CurveSettings().points + CurveSettings().refine
    probes = len(required_curves(policies)) * groups * probes_per_group
    return ensembles + probes * PASS_SHARE_PER_PROBE / ENSEMBLE_IMAGES_PER_CURVE_IMAGE


def affordable_images(settings: SearchSettings, seconds: float, passes: float) -> int:
    """Return a power of two, so that searches on one machine share their measurements."""
    assert settings.max_minutes is not None
    is_local = settings.address is None
    workers = local_trial_concurrency(settings) if is_local else settings.workers or 1
    budget = 60 * MEASUREMENT_TIME_SHARE * settings.max_minutes * workers
    most = budget / max(seconds * passes, 1e-9)
    power = math.floor(math.log2(max(most, 1)))
    return min(max(1 << power, MIN_ENSEMBLE_IMAGES), DEFAULT_ENSEMBLE_IMAGES)
