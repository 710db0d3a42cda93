"""The settings of a search, as the command line, the Python interface and config.json use them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ...spaces.cost.target import Target, parse_size
from ...spaces.errors import UserError
from ...spaces.io.validation import optional_reader, record_from_json
from ...spaces.output_forms import CHOICES, SCORES
from ...spaces.policy.policy import ALLOCATIONS, SCHEDULE_NAMES, check_choice
from ...trainers.data.image_options import (
    AUGMENT_HELP,
    MEAN_HELP,
    STD_HELP,
    ImageOptions,
    image_options,
)

POSITIVE_FIELDS = (
    "epochs",
    "dense_epochs",
    "final_epochs",
    "max_minutes",
    "trial_timeout",
    "cpus_per_trial",
    "max_latency_ms",
    "ensemble_seconds",
)
TUPLE_FIELDS = ("keep", "objective")
SAMPLER_NAMES = ("tpe", "nsga2", "gp", "random")

MODEL_HELP = "Use this network: a zoo name, torchvision:NAME or module:function."
DATA_HELP = "Use these data: digits, cifar10:DIR, folder:DIR, ... or module:function."
OUTPUTS_HELP = "State what the network returns: scores (unnormalised) or probabilities."
MEAN_OF_DATA_HELP = f"{MEAN_HELP} Default: depends on the data."
AUGMENT_OF_DATA_HELP = f"{AUGMENT_HELP} Default: depends on the data."
KEEP_HELP = "Never prune the layers whose name matches this pattern. May be repeated."
MIN_CHANNELS_HELP = "Keep at least this many channels in every group."
ROUND_TO_HELP = "Round kept widths to multiples of this."


def setting_field(default: Any, help_text: str, **metadata: Any) -> Any:
    """Return a dataclass field with the help text of its option."""
    return field(default=default, metadata={"help": help_text, **metadata})


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """The settings of a search. Each field is an option of `paretoprune search`.

    Example:
        >>> SearchSettings(target_flops="0.4", trials=50).check()
    """

    target_flops: str | None = setting_field(
        None, "Keep at most this part of the dense FLOPs: 0.4, 40% or an absolute 50M."
    )
    target_params: str | None = setting_field(
        None, "Keep at most this part of the dense parameters: 0.4, 40% or an absolute 5M."
    )
    model: str = setting_field("digits-resnet", MODEL_HELP)
    data: str = setting_field("digits", DATA_HELP)
    download: bool = setting_field(False, "Download the data into their folder first.")
    mean: str | None = setting_field(None, MEAN_OF_DATA_HELP)
    std: str | None = setting_field(None, STD_HELP)
    augment: str | None = setting_field(None, AUGMENT_OF_DATA_HELP)
    weights: Path | None = setting_field(
        None,
        "Read the weights of the dense network from this file (.safetensors or .pth). Without "
        "it, the search trains the dense network first.",
    )
    outputs: str = setting_field(SCORES, OUTPUTS_HELP)
    trials: int = setting_field(
        24, "Run this many sampled trials. The two controls are additional."
    )
    max_minutes: float | None = setting_field(
        None,
        "Limit the time to this many minutes. Training the dense network takes at most a "
        "quarter of it. After the first trial, a trial starts only if it would finish in time at "
        "the slowest duration seen so far.",
    )
    workers: int | None = setting_field(
        None, "Run this many trials at a time. Default: one per CPU core."
    )
    seed: int = setting_field(
        0,
        "Seed all randomness. With one worker, the same seed gives the same front on the same "
        "machine.",
    )
    epochs: float | None = setting_field(
        None,
        "Fine-tune each trial for this many epochs; fractions are allowed. Default: 1, more for "
        "small data.",
    )
    final_epochs: float | None = setting_field(
        None,
        "Fine-tune the front and the controls for this many more epochs at the end. Default: "
        "none.",
    )
    dense_epochs: float | None = setting_field(
        None,
        "Train the dense network for this many epochs if --weights is not given. Default: "
        "depends on the size of the data.",
    )
    out: Path | None = setting_field(
        None,
        "Write the run to this folder, which must be new or empty. Default: a new folder in "
        "runs/.",
    )
    address: str | None = setting_field(
        None,
        "Run on this Ray cluster: auto, or HOST:PORT of its head. Default: start Ray on this "
        "machine.",
    )
    artifacts: str | None = setting_field(
        None,
        "Store the weights of the trials at this URL, such as s3://BUCKET/FOLDER. Default: in "
        "the run folder.",
    )
    gpus_per_trial: float | None = setting_field(
        None,
        "Give each trial this many GPUs; below 1, trials share a GPU. Default: divide the GPUs "
        "of this machine evenly.",
    )
    cpus_per_trial: float = setting_field(1.0, "Give each trial this many CPUs.")
    trial_timeout: float | None = setting_field(
        None, "Count a trial as failed after this many seconds. Default: no limit."
    )
    allocations: str = setting_field(
        "all", f"Sample from these allocations, separated by commas: {', '.join(ALLOCATIONS)}."
    )
    schedules: str = setting_field(
        "all", f"Sample from these schedules, separated by commas: {', '.join(SCHEDULE_NAMES)}."
    )
    scores: str = setting_field("all", "Sample from these scores, separated by commas.")
    sampler: str = setting_field(
        "tpe", f"Sample policies with this method: {', '.join(SAMPLER_NAMES)}."
    )
    spread: str | None = setting_field(
        None,
        "Draw the sizes of half of the trials between these two, written LOW,HIGH. Default: from "
        "half the target to twice the target.",
    )
    objective: tuple[str, ...] = setting_field((), "Add this objective to the front: latency.")
    max_flops: str | None = setting_field(
        None, "Steer the sampler to networks of at most these FLOPs: 0.6, 60% or 50M."
    )
    max_params: str | None = setting_field(
        None, "Steer the sampler to networks of at most these parameters: 0.6, 60% or 5M."
    )
    max_latency_ms: float | None = setting_field(
        None, "Steer the sampler to networks of at most this latency in milliseconds."
    )
    min_accuracy: float | None = setting_field(
        None, "Steer the sampler to networks of at least this validation accuracy, in (0, 1)."
    )
    screening: bool = setting_field(
        True,
        "Predict the losses of thousands of policies before the first trial and try the best "
        "ones.",
        off="--no-screening",
    )
    halving: bool = setting_field(True, "Stop unpromising trials early.", off="--no-halving")
    ensemble_images: int | None = setting_field(
        None,
        "Measure an ensemble of filter masks on at most this many images, and each probe of a "
        "loss curve on a 32nd of them. Default: 16384 in a search, fewer if --max-minutes is "
        "short, more in prune.",
    )
    ensemble_samples: int | None = setting_field(
        None,
        "Measure at most this many masks per ensemble. Default: as many as --ensemble-images "
        "allows.",
    )
    ensemble_seconds: float | None = setting_field(
        None,
        "Measure one ensemble for at most this many seconds. The results then depend on the "
        "speed of the machine.",
    )
    keep: tuple[str, ...] = setting_field((), KEEP_HELP)
    min_channels: int = setting_field(1, MIN_CHANNELS_HELP)
    round_to: int = setting_field(1, ROUND_TO_HELP)
    plugin: tuple[Path, ...] = setting_field(
        (), "Load your own scores from this Python file. May be repeated."
    )
    quiet: bool = setting_field(False, "Print only the result.")
    json: bool = setting_field(False, "Print only the front, as JSON.")

    def target(self) -> Target:
        """Return the target sizes."""
        return Target(
            parse_size("--target-flops", self.target_flops),
            parse_size("--target-params", self.target_params),
        )

    def check(self) -> None:
        """Check all settings of a search.

        Raises:
            UserError: no target is given, or a value is out of range.
        """
        if self.target() == Target():
            raise UserError(
                "--target-flops or --target-params must be given, got neither; "
                "for forty percent of the FLOPs write --target-flops 0.4"
            )
        self.check_numbers()
        self.check_gpus()

    def check_numbers(self) -> None:
        """Raise a `UserError` if a number or a name is out of range."""
        check_at_least("--trials", self.trials, 1)
        check_at_least("--min-channels", self.min_channels, 1)
        check_at_least("--round-to", self.round_to, 1)
        check_at_least("--seed", self.seed, 0)
        for name, value, low in (
            ("--workers", self.workers, 1),
            ("--ensemble-images", self.ensemble_images, 1024),
            ("--ensemble-samples", self.ensemble_samples, 16),
        ):
            if value is not None:
                check_at_least(name, value, low)
        for name in POSITIVE_FIELDS:
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                option = "--" + name.replace("_", "-")
                raise UserError(
                    f"{option} must be finite and above 0, got {value}; leave it out for the "
                    "default"
                )
        if self.min_accuracy is not None and not 0 < self.min_accuracy < 1:
            raise UserError(
                f"--min-accuracy must be in (0, 1), got {self.min_accuracy}; "
                "for ninety percent write 0.9"
            )
        self.check_choices()
        self.images()
        self.size_limits()
        self.spread_bounds()

    def images(self) -> ImageOptions:
        """Parse --mean, --std and --augment."""
        return image_options(self.mean, self.std, self.augment)

    def check_choices(self) -> None:
        """Raise a `UserError` for a name that is not among the choices."""
        check_choice("--sampler", self.sampler, SAMPLER_NAMES)
        check_choice("--outputs", self.outputs, CHOICES)
        for name in self.objective:
            check_choice("--objective", name, ("latency",))
        for name in ("allocations", "schedules", "scores"):
            if not getattr(self, name).strip(", "):
                raise UserError(
                    f"--{name} must name at least one, got none; write all to use every one"
                )
        for name, choices in (("allocations", ALLOCATIONS), ("schedules", SCHEDULE_NAMES)):
            for word in self.names_in(name):
                check_choice(f"--{name}", word, choices)

    def names_in(self, name: str) -> tuple[str, ...]:
        """Split a list of names at its commas. The list `all` gives no names."""
        text = getattr(self, name)
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        return () if words == ("all",) else words

    def size_limits(self) -> tuple[float | int | None, float | int | None]:
        """Parse --max-flops and --max-params."""
        return (
            parse_size("--max-flops", self.max_flops),
            parse_size("--max-params", self.max_params),
        )

    def spread_bounds(self) -> tuple[float, float] | None:
        """Parse LOW and HIGH of --spread."""
        if self.spread is None:
            return None
        parts = [parse_size("--spread", part) for part in self.spread.split(",")]
        if len(parts) != 2 or not all(isinstance(part, float) for part in parts):
            raise UserError(f"--spread must be LOW,HIGH, got {self.spread}; write 0.2,0.8")
        low, high = (float(part) for part in parts if part is not None)
        if low >= high:
            raise UserError(f"--spread must have LOW below HIGH, got {self.spread}; write 0.2,0.8")
        return low, high

    def check_gpus(self) -> None:
        """Raise a `UserError` if no trial can get the requested share of a GPU."""
        if self.gpus_per_trial is not None and not 0 <= self.gpus_per_trial < 1e6:
            raise UserError(
                f"--gpus-per-trial must be at least 0, got {self.gpus_per_trial}; "
                "for half a GPU write 0.5"
            )
        gpus = self.gpus_per_trial or 0
        if gpus > 1 and gpus != int(gpus):
            raise UserError(
                f"--gpus-per-trial must be a whole number above 1, got {gpus:g}; "
                f"write {int(gpus) + 1}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as values for config.json."""
        values = asdict(self)
        for name in TUPLE_FIELDS:
            values[name] = list(getattr(self, name))
        values["plugin"] = [str(path) for path in self.plugin]
        for name in ("weights", "out"):
            values[name] = None if values[name] is None else str(values[name])
        return values


COMMAND_LINE_SETTINGS = ("json",)  # they have no meaning in a call from Python
PYTHON_SETTINGS = tuple(
    field.name for field in fields(SearchSettings) if field.name not in COMMAND_LINE_SETTINGS
)
SINGLE_POLICY_SETTINGS = (  # those that pruning by one policy uses
    "target_flops",
    "target_params",
    "model",
    "data",
    "download",
    "mean",
    "std",
    "augment",
    "weights",
    "outputs",
    "seed",
    "epochs",
    "dense_epochs",
    "ensemble_images",
    "ensemble_samples",
    "ensemble_seconds",
    "keep",
    "min_channels",
    "round_to",
    "plugin",
    "quiet",
)


def check_at_least(name: str, value: int, low: int) -> None:
    """Raise a `UserError` unless value >= low."""
    if value < low:
        raise UserError(
            f"{name} must be at least {low}, got {value}; leave it out for the default"
        )


def settings_from_json(values: Any) -> SearchSettings:
    """Read the settings in config.json.

    Raises:
        UserError: a field is unknown or has the wrong type.
    """
    paths = {
        "weights": optional_reader(Path),
        "out": optional_reader(Path),
        "plugin": paths_from_json,
    }
    try:
        return record_from_json(SearchSettings, values, "config.json", nested=paths)
    except TypeError as error:  # from Path
        raise UserError(
            f"config.json must store paths as text, got {error}; use an unchanged run folder"
        ) from None


def paths_from_json(values: Any) -> tuple[Path, ...]:
    """Read a list of paths."""
    return tuple(Path(value) for value in values)
