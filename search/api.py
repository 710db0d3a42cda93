"""The Python interface: search, resume, load, and the result that a search returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..analysis.report import Drawing
from ..spaces.cost.target import parse_size
from ..spaces.errors import UserError
from ..spaces.io.validation import shown
from ..spaces.policy.policy import Policy
from ..spaces.records.evaluation import Evaluation
from ..spaces.records.pareto_front import Dense, Front
from ..spaces.records.recipe import read_recipe
from ..trainers.data.sources.user import FORMS, user_data
from ..trainers.data.types import Data
from ..trainers.pruning.serialization import RECIPE, load_network
from .cli.handlers import read_front
from .cli.options import OF_ONE_POLICY
from .config.settings import SearchSettings
from .config.settings_parsing import typed
from .deploy.export import export_small
from .driver.progress import Progress
from .driver.search import Given, new_search, resume_search
from .driver.single_policy import PruneRequest, policy_named
from .driver.single_policy import prune as prune_one
from .driver.warm_start import images_like, policies_like
from .execution.signals import Stopped
from .results.formatting import answer
from .results.model_folder import inside, write_picked
from .results.notebook import figure_of, frame_of, html_of
from .results.selection import Wish, choose, measured
from .storage.artifacts import with_weights
from .storage.run_folder import RunFolder, default_folder

if TYPE_CHECKING:
    import pandas

PRINTED = "json"  # of the command line alone
OF_SEARCH = tuple(field.name for field in fields(SearchSettings) if field.name != PRINTED)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Picked:
    """One point of the front, and its network."""

    model: nn.Module  # a plain module, already smaller
    evaluation: Evaluation
    folder: Path
    dense: Dense
    widths: dict[str, int]  # kept output channels of each layer

    def __repr__(self) -> str:
        named = "" if self.evaluation.trial is None else f"trial {self.evaluation.trial}, "
        return f"Picked({named}{measured(self.evaluation)}, folder={str(self.folder)!r})"

    @property
    def policy(self) -> Policy:
        """How the network was pruned and fine-tuned."""
        return self.evaluation.policy

    @property
    def accuracy(self) -> float:
        """On validation."""
        return self.evaluation.accuracy

    @property
    def test_accuracy(self) -> float | None:
        """On test; None without a test split."""
        return self.evaluation.test_accuracy

    @property
    def flops_fraction(self) -> float:
        """What is left of the dense FLOPs."""
        return self.evaluation.flops_fraction

    @property
    def params_fraction(self) -> float:
        """What is left of the dense parameters."""
        return self.evaluation.params_fraction

    def save(self, out: str | Path) -> None:
        """Write the network to a folder that `load` reads."""
        write_picked(self.folder, self.evaluation, self.dense, Path(out))

    def export(self, path: str | Path, *, to: str | None = None, batch: int | None = None) -> Path:
        """Write the network as .pt2 or .onnx, checked against eager; see `export_small`."""
        recipe = read_recipe(inside(self.folder, self.evaluation.path) / RECIPE)
        return export_small(self.model, recipe, Path(path), to=to, batch=batch)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """What a search returns: the front's figures, and the networks behind them."""

    front: Front
    folder: Path
    dense_model: nn.Module | None = None

    def __repr__(self) -> str:
        points = f"{len(self.points)} points, {answer(self.front)}"
        return f"Result({points}, folder={str(self.folder)!r})"

    @property
    def points(self) -> tuple[Evaluation, ...]:
        """The non-dominated evaluations, smallest FLOPs first."""
        return self.front.points

    @property
    def at_target(self) -> Evaluation | None:
        """The best evaluation at the requested size."""
        return self.front.at_target

    @property
    def controls(self) -> Mapping[str, Evaluation]:
        """The uniform and the random control."""
        return self.front.controls

    @property
    def dense(self) -> Dense:
        """The figures of the network before pruning."""
        return self.front.dense

    def _repr_html_(self) -> str:
        return html_of(self.front, self.folder)

    def plot(self) -> Drawing:
        """The front as a figure that shows itself; `.save("front.svg")` or `.png` writes it."""
        return figure_of(self.front, self.folder)

    def to_pandas(self) -> pandas.DataFrame:
        """One row a network: dense, the front's points, the answer at the target, controls."""
        return frame_of(self.front)

    def pick(
        self,
        *,
        max_flops: float | str | None = None,
        max_params: float | str | None = None,
        min_accuracy: float | None = None,
        knee: bool = False,
        trial: int | None = None,
        max_latency_ms: float | None = None,
    ) -> Picked:
        """The point of best validation accuracy within the limits, with its network."""
        wish = Wish(
            parse_size("max_flops", max_flops),
            parse_size("max_params", max_params),
            min_accuracy,
            knee,
            trial,
            max_latency_ms,
        )
        point = choose(self.front, wish)
        inside(self.folder, point.path)
        loaded = load_network(with_weights(self.folder, point.path), self.dense_model)
        return Picked(loaded.model, point, self.folder, self.dense, loaded.widths)


def search(
    model: nn.Module | str,
    data: object,
    *,
    like: Result | str | Path | None = None,
    **settings: Any,
) -> Result:
    """Search for small versions of `model`, which is never changed.

    `data`: `(train, validation[, test])` of tensors, arrays, datasets or loaders, or a name as on
    the command line. `settings`: the fields of SearchSettings, as target_flops=0.4, trials=100,
    spread=(0.2, 0.8): lists where the command line has commas. mean=, std= and augment= hold for
    data of either kind; float images outside 0..1 take no mean or std.
    `like`: an earlier result, or its run folder, whose front's policies are tried first.
    """
    folder = like.folder if isinstance(like, Result) else like
    if not isinstance(folder, str | Path | None):
        raise UserError(f"like must be a result or its folder, got {shown(like)}; pass one")
    values = with_names(model, data, settings)
    chosen = SearchSettings(
        **values if folder is None else images_like(Path(folder), data, values)
    )
    chosen.check()
    policies = policies_like(Path(folder)) if folder is not None else ()

    def run(given: Given) -> tuple[RunFolder, Front]:
        return new_search(chosen, replace(given, warm_start=policies))

    return guarded(run, model, data, chosen)


def prune(
    model: nn.Module | str,
    data: object,
    policy: Policy | str,
    *,
    out: str | Path | None = None,
    min_accuracy: float | None = None,
    steps: int | None = None,
    refit: bool | None = None,
    **settings: Any,
) -> Picked:
    """Prune `model` by one policy alone, without a search; `model` is never changed.

    `policy`: a preset's name or a record. `steps` makes it gradual; `min_accuracy` ends the steps
    before validation accuracy falls below it; `refit` says whether what a cut leaves is refitted
    to the dense network. `settings`: as of `search`, target_flops=0.4 first.
    """
    values = with_names(model, data, settings, "prune", OF_ONE_POLICY)
    chosen = SearchSettings(**values)
    folder = default_folder("prune", values.get("model", "model")) if out is None else Path(out)
    asked = policy_named(policy, chosen.target(), steps=steps, refit=refit)
    request = PruneRequest(chosen, asked, folder, min_accuracy)
    given = given_objects(model, data, chosen)
    try:
        evaluation, dense = prune_one(request, given)
    except Stopped as stop:
        raise KeyboardInterrupt from stop
    loaded = load_network(folder, given.model)
    return Picked(loaded.model, replace(evaluation, path="."), folder, dense, loaded.widths)


def resume(
    run: str | Path, model: nn.Module | str | None = None, data: object = None, **settings: Any
) -> Result:
    """Go on with an interrupted search; pass again what was passed from Python."""
    repeated = checked(settings)
    if model is not None:
        check_model(model)
    if isinstance(model, str):
        repeated["model"] = model
    if isinstance(data, str):
        repeated["data"] = data
    chosen = SearchSettings(quiet=bool(repeated.get("quiet", False)))
    return guarded(lambda given: resume_search(Path(run), given, repeated), model, data, chosen)


def read_run(run: str | Path, model: nn.Module | None = None) -> Result:
    """The result in a run folder as it stands: nothing runs, nothing is written.

    `model`: the dense network, for `pick`, where no name rebuilds it.
    """
    folder, front = read_front(Path(run))
    return Result(front, folder.root, model)


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The network in a picked folder or a trial's; `model` = its dense network where needed."""
    return load_network(Path(path), model).model


def with_names(
    model: object,
    data: object,
    settings: dict[str, Any],
    what: str = "search",
    known: Sequence[str] = OF_SEARCH,
) -> dict[str, Any]:
    """The settings, and the names of what did not come as an object."""
    check_model(model)
    if data is None:
        raise UserError(f"data must be {FORMS}, or a name, got None; pass it")
    named = {"model": model, "data": data}
    return checked(settings, what, known) | {
        k: value for k, value in named.items() if isinstance(value, str)
    }


def check_model(model: object) -> None:
    """Refuse what is neither a network nor a name."""
    if isinstance(model, nn.Module | str):
        return
    if isinstance(model, type):
        remedy = f"call it: {model.__name__}(...)"
    elif isinstance(model, Mapping):
        remedy = "build the network, load the state dict into it and pass that"
    else:
        remedy = "pass the network itself"
    raise UserError(f"model must be a torch.nn.Module or a name, got {shown(model)}; {remedy}")


def checked(
    settings: dict[str, Any], what: str = "search", known: Sequence[str] = OF_SEARCH
) -> dict[str, Any]:
    """Known fields only, in the types that the record has."""
    for name in settings:
        if name not in known:
            raise UserError(f"{what} has no setting {name!r}; it has {', '.join(known)}")
    return {name: typed(name, value, what) for name, value in settings.items()}


def guarded(
    run: Any, model: nn.Module | str | None, data: object, settings: SearchSettings
) -> Result:
    """Run with the user's objects; a signal comes back as KeyboardInterrupt."""
    given = given_objects(model, data, settings)
    try:
        folder, front = run(given)
    except Stopped as stop:
        raise KeyboardInterrupt from stop
    assert isinstance(folder, RunFolder)
    return Result(front, folder.root, given.model)


def given_objects(model: nn.Module | str | None, data: object, settings: SearchSettings) -> Given:
    """What came from Python instead of by name."""
    ours: Data | None = None
    if data is not None and not isinstance(data, str):
        ours = user_data(data, seed=0)
    module = model if isinstance(model, nn.Module) else None
    return Given(Progress(quiet=settings.quiet), module, ours)
