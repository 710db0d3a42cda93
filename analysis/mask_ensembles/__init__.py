"""Linear filter ensembles (Sandor et al. 2020): score each atom by the loss under random masks.

`measure_ensemble` samples masks until the ranking has converged. `add_ensemble` adds the result to
the measurements as a score, whose name states its settings.
"""

from .measure import ensemble_stages, measure_ensemble
from .names import is_ensemble_name, name_from_settings, settings_from_name
from .result import ConvergenceCheck, EnsembleResult, MeasurementEffort, add_ensemble
from .settings import ENSEMBLE_PRESETS, EnsembleSettings
from .stages import EnsembleStep

__all__ = [
    "ENSEMBLE_PRESETS",
    "ConvergenceCheck",
    "EnsembleResult",
    "EnsembleSettings",
    "EnsembleStep",
    "MeasurementEffort",
    "add_ensemble",
    "ensemble_stages",
    "is_ensemble_name",
    "measure_ensemble",
    "name_from_settings",
    "settings_from_name",
]
