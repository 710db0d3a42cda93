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
from ..spaces.io.validation import short_repr
from ..spaces.policy.policy import Policy
from ..spaces.records.evaluation import Evaluation
from ..spaces.records.pareto_front import DenseMetrics, Front
from ..spaces.records.recipe import read_recipe
from ..trainers.data.sources.user import ACCEPTED_FORMS, convert_user_data
from ..trainers.data.types import DataSplits
from ..trainers.pruning.serialization import RECIPE_FILE, load_network
from .cli.options import SINGLE_POLICY_SETTINGS
from .config.settings import SearchSettings
from .config.settings_parsing import parse_setting
from .deploy.export import export_picked_model
from .driver.progress import SearchProgress
from .driver.search import RunInputs, new_search, resume_search
from .driver.single_policy import PruneRequest, resolve_policy
from .driver.single_policy import prune_with_policy as prune_one
from .driver.warm_start import images_like, proposals_from_run
from .execution.signals import StopRequested
from .results.formatting import describe_target_result
from .results.model_folder import check_path_inside, write_model_folder
from .results.notebook import front_dataframe, front_figure, front_html
from .results.run_summary import read_run_front
from .results.selection import SelectionCriteria, format_metrics_with_latency, select_point
from .storage.artifacts import fetch_trial_folder
from .storage.run_folder import RunFolder, default_run_folder

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
    dense: DenseMetrics
    widths: dict[str, int]  # kept output channels of each layer

    def __repr__(self) -> str:
        named = "" if self.evaluation.trial is None else f"trial {self.evaluation.trial}, "
        return f"Picked({named}{format_metrics_with_latency(self.evaluation)}, folder={str(self.folder)!r})"

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
        write_model_folder(self.folder, self.evaluation, self.dense, Path(out))

    def export(self, path: str | Path, *, to: str | None = None, batch: int | None = None) -> Path:
        """Write the network as .pt2 or .onnx, checked against eager; see `export_small`."""
        recipe = read_recipe(check_path_inside(self.folder, self.evaluation.path) / RECIPE_FILE)
        return export_picked_model(self.model, recipe, Path(path), to=to, batch=batch)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """What a search returns: the front's figures, and the networks behind them."""

    front: Front
    folder: Path
    dense_model: nn.Module | None = None

    def __repr__(self) -> str:
        points = f"{len(self.points)} points, {describe_target_result(self.front)}"
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
    def dense(self) -> DenseMetrics:
        """The figures of the network before pruning."""
        return self.front.dense

    def _repr_html_(self) -> str:
        return front_html(self.front, self.folder)

    def plot(self) -> Drawing:
        """The front as a figure that shows itself; `.save("front.svg")` or `.png` writes it."""
        return front_figure(self.front, self.folder)

    def to_pandas(self) -> pandas.DataFrame:
        """One row a network: dense, the front's points, the answer at the target, controls."""
        return front_dataframe(self.front)

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
        wish = SelectionCriteria(
            parse_size("max_flops", max_flops),
            parse_size("max_params", max_params),
            min_accuracy,
            knee,
            trial,
            max_latency_ms,
        )
        point = select_point(self.front, wish)
        check_path_inside(self.folder, point.path)
        loaded = load_network(fetch_trial_folder(self.folder, point.path), self.dense_model)
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
        raise UserError(f"like must be a result or its folder, got {short_repr(like)}; pass one")
    values = settings_with_names(model, data, settings)
    chosen = SearchSettings(
        **values if folder is None else images_like(Path(folder), data, values)
    )
    chosen.check()
    policies = proposals_from_run(Path(folder)) if folder is not None else ()

    def run(given: RunInputs) -> tuple[RunFolder, Front]:
        return new_search(chosen, replace(given, warm_start=policies))

    return run_interruptible(run, model, data, chosen)


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
    values = settings_with_names(model, data, settings, "prune", SINGLE_POLICY_SETTINGS)
    chosen = SearchSettings(**values)
    folder = (
        default_run_folder("prune", values.get("model", "model")) if out is None else Path(out)
    )
    asked = resolve_policy(policy, chosen.target(), steps=steps, refit=refit)
    request = PruneRequest(chosen, asked, folder, min_accuracy)
    given = build_run_inputs(model, data, chosen)
    try:
        evaluation, dense = prune_one(request, given)
    except StopRequested as stop:
        raise KeyboardInterrupt from stop
    loaded = load_network(folder, given.model)
    return Picked(loaded.model, replace(evaluation, path="."), folder, dense, loaded.widths)


def resume(
    run: str | Path, model: nn.Module | str | None = None, data: object = None, **settings: Any
) -> Result:
    """Go on with an interrupted search; pass again what was passed from Python."""
    repeated = validate_settings(settings)
    if model is not None:
        check_model_argument(model)
    if isinstance(model, str):
        repeated["model"] = model
    if isinstance(data, str):
        repeated["data"] = data
    chosen = SearchSettings(quiet=bool(repeated.get("quiet", False)))
    return run_interruptible(
        lambda given: resume_search(Path(run), given, repeated), model, data, chosen
    )


def read_run(run: str | Path, model: nn.Module | None = None) -> Result:
    """The result in a run folder as it stands: nothing runs, nothing is written.

    `model`: the dense network, for `pick`, where no name rebuilds it.
    """
    folder, front = read_run_front(Path(run))
    return Result(front, folder.root, model)


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The network in a picked folder or a trial's; `model` = its dense network where needed."""
    return load_network(Path(path), model).model


def settings_with_names(
    model: object,
    data: object,
    settings: dict[str, Any],
    what: str = "search",
    known: Sequence[str] = OF_SEARCH,
) -> dict[str, Any]:
    """The settings, and the names of what did not come as an object."""
    check_model_argument(model)
    if data is None:
        raise UserError(f"data must be {ACCEPTED_FORMS}, or a name, got None; pass it")
    named = {"model": model, "data": data}
    return validate_settings(settings, what, known) | {
        k: value for k, value in named.items() if isinstance(value, str)
    }


def check_model_argument(model: object) -> None:
    """Refuse what is neither a network nor a name."""
    if isinstance(model, nn.Module | str):
        return
    if isinstance(model, type):
        remedy = f"call it: {model.__name__}(...)"
    elif isinstance(model, Mapping):
        remedy = "build the network, load the state dict into it and pass that"
    else:
        remedy = "pass the network itself"
    raise UserError(
        f"model must be a torch.nn.Module or a name, got {short_repr(model)}; {remedy}"
    )


def validate_settings(
    settings: dict[str, Any], what: str = "search", known: Sequence[str] = OF_SEARCH
) -> dict[str, Any]:
    """Known fields only, in the types that the record has."""
    for name in settings:
        if name not in known:
            raise UserError(f"{what} has no setting {name!r}; it has {', '.join(known)}")
    return {name: parse_setting(name, value, what) for name, value in settings.items()}


def run_interruptible(
    run: Any, model: nn.Module | str | None, data: object, settings: SearchSettings
) -> Result:
    """Run with the user's objects; a signal comes back as KeyboardInterrupt."""
    given = build_run_inputs(model, data, settings)
    try:
        folder, front = run(given)
    except StopRequested as stop:
        raise KeyboardInterrupt from stop
    assert isinstance(folder, RunFolder)
    return Result(front, folder.root, given.model)


def build_run_inputs(
    model: nn.Module | str | None, data: object, settings: SearchSettings
) -> RunInputs:
    """What came from Python instead of by name."""
    ours: DataSplits | None = None
    if data is not None and not isinstance(data, str):
        ours = convert_user_data(data, seed=0)
    module = model if isinstance(model, nn.Module) else None
    return RunInputs(SearchProgress(quiet=settings.quiet), module, ours)
