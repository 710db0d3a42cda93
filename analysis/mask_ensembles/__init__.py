"""Linear filter ensembles (Sandor et al. 2020): measure what each atom is worth, by random masks.

`measure_ensemble` samples masks until the ranking has settled; `with_ensemble` makes the result a
score of the evidence, `surrogate_of` a prediction for any mask. A score's name says its settings.
"""

from .jobs import Measurable, Step
from .measure import ensemble_steps, measure_ensemble
from .names import is_ensemble, name_of, settings_named
from .result import Check, Effort, Ensemble, with_ensemble
from .settings import PRESETS, EnsembleSettings
from .surrogate import Surrogate, surrogate_of

__all__ = [
    "PRESETS",
    "Check",
    "Effort",
    "Ensemble",
    "EnsembleSettings",
    "Measurable",
    "Step",
    "Surrogate",
    "ensemble_steps",
    "is_ensemble",
    "measure_ensemble",
    "name_of",
    "settings_named",
    "surrogate_of",
    "with_ensemble",
]
