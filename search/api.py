"""The Python interface: search, prune, resume, read_run, load, and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from ..trainers.data.splits import DataSplits
from ..trainers.pruning.serialization import RECIPE_FILE, load_network
from .config.settings import PYTHON_SETTINGS, SINGLE_POLICY_SETTINGS, SearchSettings
from .config.settings_parsing import parse_setting
from .deploy.export import export_picked_model
from .driver.progress import SearchProgress
from .driver.search import RunInputs, new_search, resume_search
from .driver.single_policy import PruneRequest, prune_with_policy, resolve_policy
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Picked:
    """A pruned network and its metrics, from `Result.pick` or `prune`.

    Example:
        >>> picked = result.pick(max_flops=0.4)
        >>> picked.accuracy, picked.flops_fraction
        >>> picked.save("picked")
    """

    model: nn.Module
    """The pruned network: a plain module that needs nothing of ParetoPrune."""
    evaluation: Evaluation
    """All metrics of the network."""
    folder: Path
    """The run folder."""
    dense: DenseMetrics
    """The metrics of the dense network."""
    widths: dict[str, int]
    """The number of kept output channels of each layer."""

    def __repr__(self) -> str:
        name = "" if self.evaluation.trial is None else f"trial {self.evaluation.trial}, "
        metrics = format_metrics_with_latency(self.evaluation)
        return f"Picked({name}{metrics}, folder={str(self.folder)!r})"

    @property
    def policy(self) -> Policy:
        """The policy by which the network was pruned and fine-tuned."""
        return self.evaluation.policy

    @property
    def accuracy(self) -> float:
        """The validation accuracy."""
        return self.evaluation.accuracy

    @property
    def test_accuracy(self) -> float | None:
        """The test accuracy; None without a test split."""
        return self.evaluation.test_accuracy

    @property
    def flops_fraction(self) -> float:
        """The FLOPs divided by those of the dense network."""
        return self.evaluation.flops_fraction

    @property
    def params_fraction(self) -> float:
        """The number of parameters divided by that of the dense network."""
        return self.evaluation.params_fraction

    def save(self, out: str | Path) -> None:
        """Write the network to a folder that `load` and `finetune` read.

        Args:
            out: the folder, which must be new or empty.

        Raises:
            UserError: the folder has files, or cannot be written.

        Example:
            >>> picked.save("picked")
            >>> model = pp.load("picked")
        """
        write_model_folder(self.folder, self.evaluation, self.dense, Path(out))

    def export(self, path: str | Path, *, to: str | None = None, batch: int | None = None) -> Path:
        """Export the network to torch.export or ONNX.

        The file is written only if it gives the outputs of the eager network.

        Args:
            path: the file to write.
            to: "torch" or "onnx"; by default, the suffix of `path` decides (.pt2 or .onnx).
            batch: a fixed batch size; by default, the batch size is dynamic.

        Returns:
            The path of the file.

        Raises:
            UserError: the suffix and `to` disagree, the file cannot be written, or the network
                cannot be exported.

        Example:
            >>> picked.export("small.onnx")
        """
        recipe = read_recipe(check_path_inside(self.folder, self.evaluation.path) / RECIPE_FILE)
        return export_picked_model(self.model, recipe, Path(path), to=to, batch=batch)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """The result of a search: the Pareto front and access to its networks.

    In a notebook it shows itself as a table with a figure.

    Example:
        >>> result = pp.search(model, data, target_flops=0.4)
        >>> small = result.pick(max_flops=0.4).model
    """

    front: Front
    """The front with all its metrics."""
    folder: Path
    """The run folder."""
    dense_model: nn.Module | None = None
    """The dense network, if it was passed as an object."""

    def __repr__(self) -> str:
        points = f"{len(self.points)} points, {describe_target_result(self.front)}"
        return f"Result({points}, folder={str(self.folder)!r})"

    @property
    def points(self) -> tuple[Evaluation, ...]:
        """The non-dominated evaluations, ordered by FLOPs, smallest first."""
        return self.front.points

    @property
    def at_target(self) -> Evaluation | None:
        """The best evaluation within the target; None if no trial has reached it."""
        return self.front.at_target

    @property
    def controls(self) -> Mapping[str, Evaluation]:
        """The evaluations of the uniform and the random control."""
        return self.front.controls

    @property
    def dense(self) -> DenseMetrics:
        """The metrics of the network before pruning."""
        return self.front.dense

    def _repr_html_(self) -> str:
        return front_html(self.front, self.folder)

    def plot(self) -> Drawing:
        """Draw the front.

        Returns:
            A figure that a notebook shows. Its `save` method writes a .svg or .png file.

        Example:
            >>> result.plot().save("front.svg")
        """
        return front_figure(self.front, self.folder)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with one row per network.

        Returns:
            Rows for the dense network, the points of the front, the best evaluation at the target
            and the controls. The fields of the policy are columns.

        Raises:
            UserError: pandas is not installed.

        Example:
            >>> result.to_pandas()[["accuracy", "flops_fraction"]]
        """
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
        """Pick the network of best validation accuracy within the limits.

        If only `min_accuracy` is given, pick the network with the fewest FLOPs instead.

        Args:
            max_flops: the largest FLOPs: a fraction of the dense ones, "40%" or "50M".
            max_params: the largest number of parameters, written in the same way.
            min_accuracy: the lowest validation accuracy, in (0, 1].
            knee: pick the knee of the front within the limits.
            trial: pick the network of the trial with this number.
            max_latency_ms: the highest latency in milliseconds, as the search measured it.

        Returns:
            The network and its metrics.

        Raises:
            UserError: a limit is malformed, or no network is within all limits.

        Example:
            >>> result.pick(max_flops=0.4, min_accuracy=0.9).model
        """
        criteria = SelectionCriteria(
            parse_size("max_flops", max_flops),
            parse_size("max_params", max_params),
            min_accuracy,
            knee,
            trial,
            max_latency_ms,
        )
        point = select_point(self.front, criteria)
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
    """Search for the Pareto front of a network.

    Args:
        model: the network, which is never changed, or a name as on the command line.
        data: `(train, validation)` or `(train, validation, test)` of tensors, arrays, datasets or
            loaders, or a name as on the command line.
        like: an earlier result or its run folder. The policies of its front are tried first.
        **settings: the options of `paretoprune search`, as target_flops=0.4, trials=100 or
            spread=(0.2, 0.8). Use a list where the command line separates by commas. At least one
            of target_flops and target_params is needed. The settings mean, std and augment apply
            to data of either kind; float images outside 0..1 accept no mean or std.

    Returns:
        The front and access to its networks.

    Raises:
        UserError: the model, the data or a setting cannot be used.
        KeyboardInterrupt: the search was stopped; `resume` continues it.

    Example:
        >>> result = pp.search(model, (train, validation), target_flops=0.4, trials=50)
        >>> small = result.pick(max_flops=0.4).model
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

    def run(inputs: RunInputs) -> tuple[RunFolder, Front]:
        return new_search(chosen, replace(inputs, warm_start=policies))

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
    """Prune a network by a single policy, without a search.

    A second call with the same arguments continues a stopped one.

    Args:
        model: the network, which is never changed, or a name.
        data: the data, as in `search`.
        policy: the name of a preset or control, or a `Policy`.
        out: the folder of the network, new or empty; by default, a new one in runs/.
        min_accuracy: stop pruning before validation accuracy falls below this, in (0, 1). Needs a
            gradual schedule.
        steps: prune gradually, in this many steps.
        refit: refit the remaining weights to the outputs of the dense network or not; by default,
            as the policy states.
        **settings: the options of `paretoprune prune`, as target_flops=0.4.

    Returns:
        The pruned network and its metrics.

    Raises:
        UserError: the model, the data, the policy or a setting cannot be used.
        KeyboardInterrupt: the call was stopped.

    Example:
        >>> small = pp.prune(model, data, "taylor-by-price", target_flops=0.5).model
    """
    values = settings_with_names(model, data, settings, "prune", SINGLE_POLICY_SETTINGS)
    chosen = SearchSettings(**values)
    folder = (
        default_run_folder("prune", values.get("model", "model")) if out is None else Path(out)
    )
    resolved = resolve_policy(policy, chosen.target(), steps=steps, refit=refit)
    request = PruneRequest(chosen, resolved, folder, min_accuracy)
    inputs = build_run_inputs(model, data, chosen)
    try:
        evaluation, dense = prune_with_policy(request, inputs)
    except StopRequested as stop:
        raise KeyboardInterrupt from stop
    loaded = load_network(folder, inputs.model)
    return Picked(loaded.model, replace(evaluation, path="."), folder, dense, loaded.widths)


def resume(
    run: str | Path, model: nn.Module | str | None = None, data: object = None, **settings: Any
) -> Result:
    """Continue an interrupted search.

    Args:
        run: the run folder.
        model: the network, if it was passed to `search` as an object.
        data: the data, if they were passed to `search` as an object.
        **settings: settings that differ from the first call, such as a larger number of trials.

    Returns:
        The front and access to its networks.

    Raises:
        UserError: the folder is no run, or the model, the data or a setting differ from the run.
        KeyboardInterrupt: the search was stopped again.

    Example:
        >>> result = pp.resume("runs/small", model, data, trials=100)
    """
    repeated = validate_settings(settings)
    if model is not None:
        check_model_argument(model)
    if isinstance(model, str):
        repeated["model"] = model
    if isinstance(data, str):
        repeated["data"] = data
    chosen = SearchSettings(quiet=bool(repeated.get("quiet", False)))
    return run_interruptible(
        lambda inputs: resume_search(Path(run), inputs, repeated), model, data, chosen
    )


def read_run(run: str | Path, model: nn.Module | None = None) -> Result:
    """Read the current result of a run without running or writing anything.

    Args:
        run: the run folder.
        model: the dense network, which `Result.pick` needs if no name rebuilds it.

    Returns:
        The front and access to its networks.

    Raises:
        UserError: the folder is no run, or no trial has finished.

    Example:
        >>> pp.read_run("runs/small").points
    """
    folder, front = read_run_front(Path(run))
    return Result(front, folder.root, model)


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Load a pruned network.

    Args:
        path: the folder of a picked network or of a trial.
        model: the dense network with any weights, if no name rebuilds it.

    Returns:
        A plain module in eval mode.

    Raises:
        UserError: the folder has no network, or needs `model`.

    Example:
        >>> scores = pp.load("picked")(images)
    """
    return load_network(Path(path), model).model


def settings_with_names(
    model: object,
    data: object,
    settings: dict[str, Any],
    function: str = "search",
    known: Sequence[str] = PYTHON_SETTINGS,
) -> dict[str, Any]:
    """Return the checked settings, with the model and the data if they are names."""
    check_model_argument(model)
    if data is None:
        raise UserError(f"data must be {ACCEPTED_FORMS}, or a name, got None; pass it")
    arguments = {"model": model, "data": data}
    return validate_settings(settings, function, known) | {
        name: value for name, value in arguments.items() if isinstance(value, str)
    }


def check_model_argument(model: object) -> None:
    """Raise a `UserError` unless the model is a module or a name."""
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
    settings: dict[str, Any], function: str = "search", known: Sequence[str] = PYTHON_SETTINGS
) -> dict[str, Any]:
    """Convert settings to the types of `SearchSettings`; raise a `UserError` for unknown names."""
    for name in settings:
        if name not in known:
            raise UserError(f"{function} has no setting {name!r}; it has {', '.join(known)}")
    return {name: parse_setting(name, value, function) for name, value in settings.items()}


def run_interruptible(
    run: Callable[[RunInputs], tuple[RunFolder, Front]],
    model: nn.Module | str | None,
    data: object,
    settings: SearchSettings,
) -> Result:
    """Run a search with the user's objects; turn a signal into KeyboardInterrupt."""
    inputs = build_run_inputs(model, data, settings)
    try:
        folder, front = run(inputs)
    except StopRequested as stop:
        raise KeyboardInterrupt from stop
    return Result(front, folder.root, inputs.model)


def build_run_inputs(
    model: nn.Module | str | None, data: object, settings: SearchSettings
) -> RunInputs:
    """Return the inputs that were passed as objects, not as names."""
    splits: DataSplits | None = None
    if data is not None and not isinstance(data, str):
        splits = convert_user_data(data, seed=0)
    module = model if isinstance(model, nn.Module) else None
    return RunInputs(SearchProgress(quiet=settings.quiet), module, splits)
