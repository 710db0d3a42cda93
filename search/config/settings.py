"""The settings of a search: one record, the command line, the call and config.json alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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


def setting_field(default: Any, text: str, **more: Any) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a user may choose. Every field is an option of `paretoprune search`."""

    target_flops: str | None = setting_field(
        None, "Keep at most this much of the dense FLOPs: 0.4, 40% or an absolute 50M."
    )
    target_params: str | None = setting_field(
        None, "Keep at most this much of the dense parameters: 0.4, 40% or an absolute 5M."
    )
    model: str = setting_field("digits-resnet", "A zoo name, torchvision:NAME or module:function.")
    data: str = setting_field("digits", "digits, cifar10:DIR, folder:DIR, ... or module:function.")
    download: bool = setting_field(
        False, "Let torchvision fetch the data into their directory first."
    )
    mean: str | None = setting_field(None, f"{MEAN_HELP}; default: by the data.")
    std: str | None = setting_field(None, STD_HELP)
    augment: str | None = setting_field(None, f"{AUGMENT_HELP}; default: by the data.")
    weights: Path | None = setting_field(
        None, "Weights of the dense network (safetensors or .pth); without, it is trained first."
    )
    outputs: str = setting_field(
        SCORES, "What the network returns: scores (unnormalised), or probabilities."
    )
    trials: int = setting_field(24, "Sampled trials; the two controls come on top.")
    max_minutes: float | None = setting_field(
        None,
        "Time limit in minutes. Training the dense network takes a quarter of it at most; after "
        "the first trial, a trial starts only if it would finish in time at the slowest duration "
        "seen so far.",
    )
    workers: int | None = setting_field(None, "Trials at a time; default: one a core.")
    seed: int = setting_field(0, "Same seed, same machine, one worker: same front.")
    epochs: float | None = setting_field(
        None, "Fine-tuning epochs of a trial; default: 1, more for small data."
    )
    final_epochs: float | None = setting_field(
        None, "Epochs that the front and the controls are fine-tuned on at the end; default: none."
    )
    dense_epochs: float | None = setting_field(
        None, "Epochs of the dense training without --weights; default: by the size of the data."
    )
    out: Path | None = setting_field(
        None, "The run folder, new or empty; default: a new one in runs/."
    )
    address: str | None = setting_field(
        None, "A Ray cluster to run on: auto, or HOST:PORT of its head; default: local."
    )
    artifacts: str | None = setting_field(
        None, "Where trials' weights go instead of the run folder: s3://BUCKET/FOLDER, ..."
    )
    gpus_per_trial: float | None = setting_field(
        None, "GPUs of one trial; fractions share one; default: this machine's, shared evenly."
    )
    cpus_per_trial: float = setting_field(1.0, "CPUs of one trial.")
    trial_timeout: float | None = setting_field(None, "Seconds after which a trial has failed.")
    allocations: str = setting_field("all", f"Of {', '.join(ALLOCATIONS)}; separated by commas.")
    schedules: str = setting_field("all", f"Of {', '.join(SCHEDULE_NAMES)}; separated by commas.")
    scores: str = setting_field("all", "Scores that policies may rank by; separated by commas.")
    sampler: str = setting_field("tpe", f"Of {', '.join(SAMPLER_NAMES)}.")
    spread: str | None = setting_field(
        None, "LOW,HIGH: sizes that half of the trials aim at; default: half to twice the target."
    )
    objective: tuple[str, ...] = setting_field(
        (), "latency: one more axis of the front; repeatable."
    )
    max_flops: str | None = setting_field(
        None, "A limit that steers the sampler: 0.6, 60% or 50M."
    )
    max_params: str | None = setting_field(
        None, "A limit that steers the sampler: 0.6, 60% or 5M."
    )
    max_latency_ms: float | None = setting_field(None, "A limit that steers the sampler.")
    min_accuracy: float | None = setting_field(
        None, "A limit that steers the sampler, on validation."
    )
    screening: bool = setting_field(
        True, "Foretell thousands of policies before the first trial.", off="--no-screening"
    )
    halving: bool = setting_field(True, "Stop hopeless trials on their way.", off="--no-halving")
    ensemble_images: int | None = setting_field(
        None,
        "Images that an ensemble of filter masks may be measured on, a probe of a loss curve on a "
        "32nd of them; default: 16384 in a search, fewer where --max-minutes are short, more with "
        "prune.",
    )
    ensemble_samples: int | None = setting_field(
        None, "Masks of one ensemble, at most; default: as many as --ensemble-images allows."
    )
    ensemble_seconds: float | None = setting_field(
        None, "Seconds of measuring one ensemble, at most; results then depend on the machine."
    )
    keep: tuple[str, ...] = setting_field(
        (), "Layers never cut, as a name pattern; may be repeated."
    )
    min_channels: int = setting_field(1, "Channels that every group keeps at least.")
    round_to: int = setting_field(1, "Kept widths are multiples of this.")
    plugin: tuple[Path, ...] = setting_field(
        (), "A Python file with scores of your own; repeatable."
    )
    quiet: bool = setting_field(False, "Print the result only.")
    json: bool = setting_field(False, "Print the front as JSON only.")

    def target(self) -> Target:
        """The requested sizes."""
        return Target(
            parse_size("--target-flops", self.target_flops),
            parse_size("--target-params", self.target_params),
        )

    def check(self) -> None:
        """Refuse settings that make no search."""
        if self.target() == Target():
            raise UserError(
                "--target-flops or --target-params must be given, got neither; "
                "for forty percent of the FLOPs write --target-flops 0.4"
            )
        self.check_numbers()
        self.check_gpus()

    def check_numbers(self) -> None:
        """Refuse numbers out of their range."""
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
        """--mean, --std and --augment."""
        return image_options(self.mean, self.std, self.augment)

    def check_choices(self) -> None:
        """Refuse words that name nothing."""
        check_choice("--sampler", self.sampler, SAMPLER_NAMES)
        check_choice("--outputs", self.outputs, CHOICES)
        for name in self.objective:
            check_choice("--objective", name, ("latency",))
        for name in ("allocations", "schedules", "scores"):
            if not getattr(self, name).strip(", "):
                raise UserError(
                    f"--{name} must name at least one, got none; write all for every one"
                )
        for name, choices in (("allocations", ALLOCATIONS), ("schedules", SCHEDULE_NAMES)):
            for word in self.names_in(name):
                check_choice(f"--{name}", word, choices)

    def names_in(self, name: str) -> tuple[str, ...]:
        """The names in a list separated by commas; none for all."""
        text = getattr(self, name)
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        return () if words == ("all",) else words

    def size_limits(self) -> tuple[float | int | None, float | int | None]:
        """--max-flops and --max-params."""
        return (
            parse_size("--max-flops", self.max_flops),
            parse_size("--max-params", self.max_params),
        )

    def spread_bounds(self) -> tuple[float, float] | None:
        """LOW and HIGH of --spread."""
        if self.spread is None:
            return None
        parts = [parse_size("--spread", part) for part in self.spread.split(",")]
        if len(parts) != 2 or not all(isinstance(part, float) for part in parts):
            raise UserError(f"--spread must be LOW,HIGH, got {self.spread}; write 0.2,0.8")
        low, high = (float(part) for part in parts if part is not None)
        if low >= high:
            raise UserError(
                f"--spread must be a LOW below a HIGH, got {self.spread}; write 0.2,0.8"
            )
        return low, high

    def check_gpus(self) -> None:
        """Refuse a share of a GPU that no trial can have."""
        if self.gpus_per_trial is not None and not 0 <= self.gpus_per_trial < 1e6:
            raise UserError(
                f"--gpus-per-trial must be at least 0, got {self.gpus_per_trial}; 0.5 shares one"
            )
        gpus = self.gpus_per_trial or 0
        if gpus > 1 and gpus != int(gpus):
            raise UserError(
                f"--gpus-per-trial must be whole above 1, got {gpus:g}; write {int(gpus) + 1}"
            )

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        values = asdict(self)
        for name in TUPLE_FIELDS:
            values[name] = list(getattr(self, name))
        values["plugin"] = [str(path) for path in self.plugin]
        for name in ("weights", "out"):
            values[name] = None if values[name] is None else str(values[name])
        return values


def check_at_least(name: str, value: int, low: int) -> None:
    """Raise unless value >= low."""
    if value < low:
        raise UserError(
            f"{name} must be at least {low}, got {value}; leave it out for the default"
        )


def settings_from_json(values: Any) -> SearchSettings:
    """Read the settings of an earlier run; a wrong type or an unknown field is one line."""
    paths = {
        "weights": optional_reader(Path),
        "out": optional_reader(Path),
        "plugin": paths_from_json,
    }
    try:
        return record_from_json(SearchSettings, values, "config.json", nested=paths)
    except TypeError as error:  # of a path
        raise UserError(f"config.json must hold paths as text, got {error}") from None


def paths_from_json(values: Any) -> tuple[Path, ...]:
    """Several paths."""
    return tuple(Path(value) for value in values)
