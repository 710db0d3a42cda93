"""The settings of a search: one record, the command line, the call and config.json alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..spaces.errors import UserError
from ..spaces.target import Target, parse_size


def option(default: Any, text: str, **more: Any) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a user may choose. Every field is an option of `paretoprune search`."""

    target_flops: str | None = option(
        None, "Keep at most this much of the dense FLOPs: 0.4, 40% or an absolute 50M."
    )
    target_params: str | None = option(
        None, "Keep at most this much of the dense parameters: 0.4, 40% or an absolute 5M."
    )
    model: str = option("digits-resnet", "A zoo name, torchvision:NAME or module:function.")
    data: str = option("digits", "digits, cifar10:DIR, folder:DIR, ... or module:function.")
    download: bool = option(False, "Let torchvision fetch the data into their directory first.")
    weights: Path | None = option(
        None, "Weights of the dense network (safetensors or .pth); without, it is trained first."
    )
    trials: int = option(24, "Sampled trials; the two controls come on top.")
    workers: int | None = option(None, "Trials at a time; default: one a core.")
    seed: int = option(0, "Same seed, same machine, one worker: same front.")
    epochs: float | None = option(
        None, "Fine-tuning epochs of a trial; default: 1, more for small data."
    )
    dense_epochs: float | None = option(
        None, "Epochs of the dense training without --weights; default: by the size of the data."
    )
    out: Path | None = option(None, "The run folder, new or empty; default: a new one in runs/.")
    address: str | None = option(
        None, "A Ray cluster to run on (auto, ray://...); default: local."
    )
    gpus_per_trial: float | None = option(
        None, "GPUs of one trial; fractions share one; default: this machine's, shared evenly."
    )
    keep: tuple[str, ...] = option((), "Layers never cut, as a name pattern; may be repeated.")
    min_channels: int = option(1, "Channels that every group keeps at least.")
    round_to: int = option(1, "Kept widths are multiples of this.")
    plugin: tuple[Path, ...] = option((), "A Python file with scores of your own; repeatable.")
    quiet: bool = option(False, "Print the result only.")

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

    def check_numbers(self) -> None:
        """Refuse numbers out of their range."""
        at_least("--trials", self.trials, 1)
        at_least("--min-channels", self.min_channels, 1)
        at_least("--round-to", self.round_to, 1)
        at_least("--seed", self.seed, 0)
        if self.workers is not None:
            at_least("--workers", self.workers, 1)
        for name, value in (("--epochs", self.epochs), ("--dense-epochs", self.dense_epochs)):
            if value is not None and not 0 < value < 1e6:
                raise UserError(f"{name} must be above 0, got {value}; 1 is usual")
        if self.gpus_per_trial is not None and not 0 <= self.gpus_per_trial < 1e6:
            raise UserError(
                f"--gpus-per-trial must be at least 0, got {self.gpus_per_trial}; 0.5 shares one"
            )

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        values = asdict(self)
        values["keep"] = list(self.keep)
        values["plugin"] = [str(path) for path in self.plugin]
        for name in ("weights", "out"):
            values[name] = None if values[name] is None else str(values[name])
        return values


def at_least(name: str, value: int, low: int) -> None:
    """Raise unless value >= low."""
    if value < low:
        raise UserError(
            f"{name} must be at least {low}, got {value}; leave it out for the default"
        )


def settings_from_json(values: dict[str, Any]) -> SearchSettings:
    """Read the settings of an earlier run; unknown fields are an error."""
    known = {f.name for f in fields(SearchSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(
            f"config.json must hold settings of this version, got {unknown[0]!r}; update it"
        )
    kept = dict(values)
    kept["keep"] = tuple(values.get("keep", ()))
    kept["plugin"] = tuple(Path(path) for path in values.get("plugin", ()))
    for name in ("weights", "out"):
        if kept.get(name) is not None:
            kept[name] = Path(kept[name])
    return SearchSettings(**kept)
