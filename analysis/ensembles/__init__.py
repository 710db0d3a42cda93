"""Linear filter ensembles (Sandor et al. 2020): measure what each atom is worth, by random masks.

`measure_ensemble` samples masks until the ranking has settled; `with_ensemble` makes the result a
score of the evidence, `surrogate_of` a prediction for any mask.
"""

from .measure import measure_ensemble
from .record import Check, Effort, Ensemble, with_ensemble
from .settings import PRESETS, EnsembleSettings
from .surrogate import Surrogate, surrogate_of

__all__ = [
    "PRESETS",
    "Check",
    "Effort",
    "Ensemble",
    "EnsembleSettings",
    "Surrogate",
    "measure_ensemble",
    "surrogate_of",
    "with_ensemble",
]
