"""The recipe: policy + mask, enough to rebuild a small network from its dense one.

A picked network's recipe says besides what was measured of it, and with what. Schema 1 had the
mask, the hashes and the policy only; it is read as a recipe in which nothing was measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Mask
from ..cost.target import Target, target_from_json
from ..errors import UserError
from ..io.bounded_read import read_json
from ..io.validation import is_finite_number, optional_reader, record_from_json, short_repr
from ..output_forms import FORMS, SCORES, WHOLE
from ..policy.policy import Policy, policy_from_json
from .evaluation import Evaluation
from .pareto_front import DenseMetrics

SCHEMA = 2
FIELDS_NEW_IN_SCHEMA_2 = (
    "widths",
    "versions",
    "figures",
    "dense",
    "dense_sha256",
    "fine_tune",
    "earlier",
)
FIELDS_RENAMED_IN_SCHEMA_2 = {
    "step_epochs": "step_share",
    "gate_epochs": "gate_share",
}  # of the trial's epochs
# What a stranger's file may ask for.
MAX_CLASSES, MAX_INPUT_VALUES, MAX_ATOMS, MAX_NAME_LENGTH = 10**5, 2**24, 10**8, 300


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the dense network comes from. `name` is None for a module that the user passed in.

    `mean` and `std` are per channel, of images scaled to 0..1; empty where nobody noted them.
    `augment`: the augmentation of training; None where nobody noted it.
    `data` is what accuracies were measured on, as the user named it, and a hash of it.
    `outputs` is the form of what it returns (scores, softmax or sigmoid), `element` where in its
    output the class scores are.
    """

    name: str | None
    classes: int
    input_shape: tuple[int, ...]
    keep: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    data: str | None = None
    data_sha256: str | None = None
    augment: str | None = None
    outputs: str = SCORES
    element: str = WHOLE


@dataclass(frozen=True, slots=True)
class RecipeMetrics:
    """What was measured of the network; accuracy and loss on the validation split."""

    accuracy: float
    loss: float
    macs: int
    params: int
    flops_fraction: float
    params_fraction: float
    epochs: float  # of fine-tuning, all of them
    test_accuracy: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class FineTuneRecord:
    """A full fine-tune that the weights come from: its settings, and what it started from."""

    data: str
    epochs: float
    learning_rate: float
    batch_size: int
    distill: float
    seed: int
    processes: int
    best_epoch: float
    accuracy_before: float
    data_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network: which atoms of which dense one are kept, by what policy, with what result."""

    source: ModelSource
    atoms: int
    removed: tuple[int, ...]
    map_sha256: str
    weights_sha256: str
    policy: Policy
    target: Target
    seed: int
    widths: dict[str, int] = field(default_factory=dict)  # kept output channels of each layer
    versions: dict[str, str] = field(default_factory=dict)
    figures: RecipeMetrics | None = None
    dense: DenseMetrics | None = None
    dense_sha256: str | None = None  # of the dense network's weights beside it, if they are there
    fine_tune: FineTuneRecord | None = None  # the last one, which the figures are of
    earlier: tuple[FineTuneRecord, ...] = ()  # those before it, in order
    schema: int = SCHEMA

    @property
    def mask(self) -> Mask:
        """Bool [A], True = kept."""
        keep = np.ones(self.atoms, bool)
        keep[list(self.removed)] = False
        return keep

    @property
    def fine_tunes(self) -> tuple[FineTuneRecord, ...]:
        """Those that the network has behind it, in order."""
        return self.earlier if self.fine_tune is None else (*self.earlier, self.fine_tune)

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def portable_data_name(name: str) -> str:
    """Data as a recipe names them: without the folders of the machine that they lay on."""
    kind, colon, where = name.partition(":")
    return kind + colon + where.rstrip("/").rpartition("/")[2]


def recipe_metrics(evaluation: Evaluation) -> RecipeMetrics:
    """The figures of an evaluation, without what it was an evaluation of."""
    return RecipeMetrics(**{name: getattr(evaluation, name) for name in RecipeMetrics.__slots__})


def recipe_from_json(values: Any, where: str = "recipe.json") -> Recipe:
    """Read a recipe; unknown fields are errors, a newer schema is refused, an older migrated."""
    tuned = partial(record_from_json, FineTuneRecord, where=f"{where}, fine_tune,")
    nested = {
        "source": lambda v: record_from_json(ModelSource, v, f"{where}, source,"),
        "policy": policy_from_json,
        "target": target_from_json,
        "figures": optional_reader(
            lambda v: record_from_json(RecipeMetrics, v, f"{where}, figures,")
        ),
        "dense": optional_reader(lambda v: record_from_json(DenseMetrics, v, f"{where}, dense,")),
        "fine_tune": optional_reader(tuned),
        "earlier": lambda v: tuple(tuned(values=each) for each in v),
    }
    try:
        recipe = record_from_json(Recipe, migrate_recipe(values, where), where, nested=nested)
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(f"{where} must hold a recipe, got {error}; write it again") from None
    check_recipe_sizes(recipe, where)
    return recipe


def migrate_recipe(values: Any, where: str) -> Any:
    """The values of a schema 1 recipe as schema 2 has them.

    Its policy counted the epochs of steps and gates, out of the one epoch that a trial had unless
    it was told otherwise.
    """
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema == SCHEMA:
        return values
    if schema != 1 or isinstance(schema, bool):
        raise UserError(
            f"{where} must have schema 1 to {SCHEMA}, got {short_repr(schema)}; update paretoprune"
        )
    for name in FIELDS_NEW_IN_SCHEMA_2:
        if name in values:
            raise UserError(f"{where} has an unknown field {name!r}; write it again")
    policy = values.get("policy")
    if isinstance(policy, dict):
        policy = {
            FIELDS_RENAMED_IN_SCHEMA_2.get(name, name): value for name, value in policy.items()
        }
        for name in FIELDS_RENAMED_IN_SCHEMA_2.values():
            if is_finite_number(policy.get(name)):
                policy[name] = min(1.0, policy[name])
    return {**values, "policy": policy, "schema": SCHEMA}


def check_recipe_sizes(recipe: Recipe, where: str) -> None:
    """Refuse sizes that no network has, before anything of such a size is made."""
    atoms, source = recipe.atoms, recipe.source
    if not 0 < atoms <= MAX_ATOMS or any(not 0 <= a < atoms for a in recipe.removed):
        raise UserError(f"{where} must remove atoms below {atoms}, got others; write it again")
    if not 1 <= source.classes <= MAX_CLASSES:
        raise UserError(
            f"{where} must have 1 to {MAX_CLASSES:,} classes, got {source.classes}; write it again"
        )
    if source.name is not None and len(source.name) > MAX_NAME_LENGTH:
        raise UserError(
            f"{where} must name its model in at most {MAX_NAME_LENGTH} letters, got "
            f"{short_repr(source.name)}; write it again"
        )
    if source.outputs not in FORMS:
        raise UserError(
            f"{where} must have outputs of {', '.join(FORMS)}, got {short_repr(source.outputs)}; "
            "write it again"
        )
    shape = source.input_shape
    if not 1 <= len(shape) <= 4 or min(shape) < 1 or prod(shape) > MAX_INPUT_VALUES:
        raise UserError(
            f"{where} must have an input_shape of at most {MAX_INPUT_VALUES:,} values, got "
            f"{short_repr(shape)}; write it again"
        )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; each fault is one line."""
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"a picked network's folder must hold {path.name}, got none in {path.parent}; "
            "make one with paretoprune pick"
        ) from None
    return recipe_from_json(values, str(path))
