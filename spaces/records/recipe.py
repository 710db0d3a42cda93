"""The recipe: policy and mask, enough to rebuild a pruned network from its dense network.

The recipe of a picked network also holds its metrics and the versions that produced them. Schema 1
had only the mask, the hashes and the policy; it is read as a recipe without metrics.
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
# Limits for untrusted files.
MAX_CLASSES, MAX_INPUT_VALUES, MAX_ATOMS, MAX_NAME_LENGTH = 10**5, 2**24, 10**8, 300


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the dense network comes from, and what it takes and returns.

    Attributes:
        name: The model's name; None for a module that the user passed in.
        classes: The number of classes.
        input_shape: The shape of one sample.
        keep: The layers whose outputs were never removed.
        mean: Per channel, of images scaled to 0..1; empty if unknown.
        std: Per channel, of images scaled to 0..1; empty if unknown.
        data: The data of the accuracies, as the user named them.
        data_sha256: A hash of the data.
        augment: The training augmentation; None if unknown.
        outputs: The form of the outputs: scores, softmax or sigmoid.
        element: The path of the class scores in the outputs.
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
    """The metrics of the network; `accuracy` and `loss` are those of the validation split."""

    accuracy: float
    loss: float
    macs: int
    params: int
    flops_fraction: float
    params_fraction: float
    epochs: float  # of fine-tuning, in total
    test_accuracy: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class FineTuneRecord:
    """A full fine-tune: its settings and the accuracy before it."""

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
    """One pruned network: the dense network, the removed atoms, the policy and the metrics."""

    source: ModelSource
    atoms: int
    removed: tuple[int, ...]
    map_sha256: str
    weights_sha256: str
    policy: Policy
    target: Target
    seed: int
    widths: dict[str, int] = field(default_factory=dict)  # kept output channels by layer
    versions: dict[str, str] = field(default_factory=dict)
    figures: RecipeMetrics | None = None
    dense: DenseMetrics | None = None
    dense_sha256: str | None = None  # of the dense weights stored beside the recipe, if any
    fine_tune: FineTuneRecord | None = None  # the last fine-tune, which `figures` describe
    earlier: tuple[FineTuneRecord, ...] = ()  # earlier fine-tunes, in order
    schema: int = SCHEMA

    @property
    def mask(self) -> Mask:
        """The mask, bool [A], True = kept."""
        keep = np.ones(self.atoms, bool)
        keep[list(self.removed)] = False
        return keep

    @property
    def fine_tunes(self) -> tuple[FineTuneRecord, ...]:
        """All fine-tunes of the network, in order."""
        return self.earlier if self.fine_tune is None else (*self.earlier, self.fine_tune)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def portable_data_name(name: str) -> str:
    """Return a data name for a recipe: without the parent folders of local paths."""
    kind, colon, where = name.partition(":")
    return kind + colon + where.rstrip("/").rpartition("/")[2]


def recipe_metrics(evaluation: Evaluation) -> RecipeMetrics:
    """Return the metrics of an evaluation, without its policy and target."""
    return RecipeMetrics(**{name: getattr(evaluation, name) for name in RecipeMetrics.__slots__})


def recipe_from_json(values: Any, where: str = "recipe.json") -> Recipe:
    """Read a recipe; an older schema is migrated.

    Raises:
        UserError: If a field is unknown or wrong, or a newer version wrote the recipe.
    """
    read_fine_tune = partial(record_from_json, FineTuneRecord, where=f"{where}, fine_tune,")
    nested = {
        "source": lambda v: record_from_json(ModelSource, v, f"{where}, source,"),
        "policy": policy_from_json,
        "target": target_from_json,
        "figures": optional_reader(
            lambda v: record_from_json(RecipeMetrics, v, f"{where}, figures,")
        ),
        "dense": optional_reader(lambda v: record_from_json(DenseMetrics, v, f"{where}, dense,")),
        "fine_tune": optional_reader(read_fine_tune),
        "earlier": lambda v: tuple(read_fine_tune(values=each) for each in v),
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
    """Convert the values of a schema 1 recipe to schema 2.

    Its policy held the epochs of steps and gates, out of one epoch per trial by default.
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
    """Raise UserError for sizes out of range, before anything of such a size is allocated."""
    atoms, source = recipe.atoms, recipe.source
    if not 0 < atoms <= MAX_ATOMS or any(not 0 <= a < atoms for a in recipe.removed):
        raise UserError(f"{where} must remove atoms in [0, {atoms}), got others; write it again")
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
    """Read a recipe file; a UserError of one line names any fault."""
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"a picked network's folder must hold {path.name}, got none in {path.parent}; "
            "make one with paretoprune pick"
        ) from None
    return recipe_from_json(values, str(path))
