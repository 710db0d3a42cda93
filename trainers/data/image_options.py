"""What a user may say of images: mean, std and augmentation; checked, applied, told in one line.

Without torch: the command line checks its options with this before anything heavy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...spaces.errors import UserError

if TYPE_CHECKING:
    from .types import DataSplits

Values = tuple[float, ...]
AUGMENTATIONS = ("none", "crop", "flip-crop")
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
PRESETS: dict[str, tuple[Values, Values]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": CIFAR10,
    "half": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
}
MEAN_HELP = (
    "Mean of the normalisation that the weights were trained with, for images scaled to 0..1: one "
    f"number, one per channel (0.485,0.456,0.406), or {', '.join(PRESETS)}, which also set --std."
)
STD_HELP = "Standard deviation that belongs to --mean: one number, or one per channel."
AUGMENT_HELP = f"Training augmentation: {', '.join(AUGMENTATIONS)}."
CHANNELS = {
    "digits": (1,),
    "mnist": (1,),
    "fashion-mnist": (1,),
    "cifar10": (3,),
    "cifar100": (3,),
    "folder": (1, 3),
}
SHOWN = 4  # numbers of a mean in a line

# The default augmentation of a source and the reason; what is not here: none.
DEFAULTS = {
    "cifar10": ("flip-crop", "as in the published recipes"),
    "cifar100": ("flip-crop", "as in the published recipes"),
    "digits": ("none", "as a flip changes a digit"),
    "mnist": ("none", "as a flip changes a digit"),
}
OTHERS = ("none", "as a flip or a crop may change what an image shows")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What was chosen of mean, std and augmentation; None: as the data have it."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: str | None = None


def image_options(mean: str | None, std: str | None, augment: str | None) -> ImageOptions:
    """Read the options of a command or a call; each fault is one line."""
    if augment is not None:
        check_augment(augment)
    if mean is None and std is None:
        return ImageOptions(augment=augment)
    if mean is None:
        raise UserError(f"--std must come with --mean, got --std {std} alone; add --mean")
    if mean in PRESETS:
        values = PRESETS[mean]
        if std not in (None, mean) and (std in PRESETS or numbers_of("--std", std) != values[1]):
            raise UserError(
                f"--mean {mean} sets both, got --std {std} besides; leave out --std, or write "
                "numbers for both"
            )
        return ImageOptions(*values, augment)
    found = numbers_of("--mean", mean)
    if std is None:
        raise UserError(
            f"--mean must come with --std unless it is one of {', '.join(PRESETS)}, got --mean "
            f"{mean} alone; add --std"
        )
    if std in PRESETS:
        raise UserError(
            f"--std must be numbers where --mean is, got {std}; write its numbers, or --mean {std}"
        )
    return ImageOptions(found, numbers_of("--std", std), augment)


def check_augment(augment: object) -> None:
    """Refuse another augmentation than those there are."""
    if augment not in AUGMENTATIONS:
        raise UserError(
            f"--augment must be one of {', '.join(AUGMENTATIONS)}, got {augment}; pick one of "
            "these"
        )


def numbers_of(option: str, text: str) -> Values:
    """One number or several between commas, in the range of images scaled to 0..1."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        remedy = f"write 0.5, 0.485,0.456,0.406 or one of {', '.join(PRESETS)}"
        raise UserError(f"{option} must be numbers, got {text}; {remedy}") from None
    for value in values:
        check_value(option, value)
    return values


def check_value(option: str, value: float) -> None:
    """Refuse a mean outside 0..1, and a std that is 0, negative or above 1."""
    above_zero = option == "--std"
    if math.isfinite(value) and (value > 0 if above_zero else value >= 0) and value <= 1:
        return
    bounds, remedy = "in [0, 1]", "images are scaled to 0..1"
    if above_zero:
        bounds, remedy = "above 0 and at most 1", "1 leaves the scale as it is"
    if math.isfinite(value) and value > 1:
        remedy = f"images are scaled to 0..1: divide by 255, {value / 255:.4g}"
    raise UserError(f"{option} must be {bounds}, got {value:g}; {remedy}")


def check_for_source(options: ImageOptions, name: str) -> None:
    """Refuse so many numbers that no image of a named source has so many channels."""
    channels = CHANNELS.get(name.partition(":")[0])
    if channels is not None:
        check_counts(options, channels)


def check_counts(options: ImageOptions, channels: Sequence[int]) -> None:
    """Refuse numbers that are neither one for all channels nor one a channel."""
    for option, values in (("--mean", options.mean), ("--std", options.std)):
        if values is not None and len(values) not in (1, *channels):
            found = " or ".join(map(str, channels))
            raise UserError(
                f"{option} must be one number or one for each channel ({found}), got "
                f"{len(values)} numbers; one number stands for all channels"
            )


def with_options(data: DataSplits, options: ImageOptions) -> DataSplits:
    """The data with these options; refused where they do not fit the images."""
    shape = tuple(data.input_shape)
    check_counts(options, shape[:1])
    if options.augment not in (None, "none") and len(shape) != 3:
        raise UserError(
            f"--augment {options.augment} needs images of shape (channels, height, width), got "
            f"{shape}; write --augment none"
        )
    if options.mean is None or options.std is None:
        return replace(data, augment=options.augment or data.augment)
    mean, std = wide(options.mean, shape[0]), wide(options.std, shape[0])
    low, high = float_range(data)
    new = (mean, std) != (tuple(data.mean), tuple(data.std))
    if new and is_set(mean, std) and not (low >= 0 and high <= 1):
        raise UserError(
            f"--mean and --std must be for images in 0..1, got float images from {low:.4g} to "
            f"{high:.4g}; leave both out where you normalised the images yourself"
        )
    return replace(data, mean=mean, std=std, augment=options.augment or data.augment)


def with_recorded(data: DataSplits, recorded: ImageOptions) -> DataSplits:
    """The data as a recipe has them; float images outside 0..1 are the user's own scale."""
    low, high = float_range(data)
    if recorded.mean is None or recorded.std is None or not (low >= 0 and high <= 1):
        recorded = replace(recorded, mean=None, std=None)
    return with_options(data, recorded)


def options_in(data: DataSplits) -> ImageOptions:
    """What the data have, as numbers."""
    return ImageOptions(
        tuple(map(float, data.mean)), tuple(map(float, data.std)), augment=data.augment
    )


def wide(values: Values, channels: int) -> Values:
    """One number for all channels becomes one a channel."""
    return values * channels if len(values) == 1 else values


def is_set(mean: Values, std: Values) -> bool:
    """True if the two change an image."""
    return any(mean) or any(value != 1 for value in std)


def float_range(data: DataSplits) -> tuple[float, float]:
    """The least and the greatest value of float training images; 0, 1 of all others."""
    images = data.train.images
    if not images.is_floating_point() or images.numel() == 0:
        return 0.0, 1.0
    low, high = images.aminmax()
    return float(low), float(high)


def numbers_shown(values: Values) -> str:
    """Mean or std in a line; many numbers are cut short."""
    text = ", ".join(f"{value:.4g}" for value in values[:SHOWN])
    return text if len(values) <= SHOWN else f"{text}, ..."


def normalisation_in(data: DataSplits) -> str:
    """Mean and std in words."""
    return f"mean {numbers_shown(data.mean)}; std {numbers_shown(data.std)}"


def told_normalisation(data: DataSplits, given: ImageOptions, recorded: str | None = None) -> str:
    """The line about mean and std; `recorded`: where those come from that nobody gave."""
    if given.mean is not None:
        why = "as given"
    elif recorded is not None:
        why = f"from {recorded}"
    elif data.train.images.is_floating_point():
        why = "float images are taken as they are"
    else:
        why = f"the default for {source_of(data)}; --mean and --std set those of the weights"
    return f"normalisation: {normalisation_in(data)} ({why})"


def told_augmentation(data: DataSplits, given: ImageOptions, recorded: str | None = None) -> str:
    """The line about augmentation, and how to change it."""
    usual, reason = default_of(data.name)
    off = data.augment == "none"
    change = "crop or flip-crop turns it on" if off else "none turns it off"
    if given.augment is not None:
        why = "as given"
    elif recorded is not None:
        why = f"from {recorded}; --augment {change}"
    elif data.augment == usual:
        why = f"the default for {source_of(data)}, {reason}; --augment {change}"
    else:
        why = f"as the data say; --augment {change}"
    return f"augmentation: {data.augment} ({why})"


def default_of(name: str) -> tuple[str, str]:
    """The augmentation of a source where nobody chose one, and why."""
    return DEFAULTS.get(name.partition(":")[0], OTHERS)


def source_of(data: DataSplits) -> str:
    """The kind of data in words."""
    kind, colon, _ = data.name.partition(":")
    if kind in CHANNELS:
        return f"{kind}:DIR" if colon else kind
    return "your own data"


def near_chance(accuracy: float, labels: Sequence[int]) -> tuple[float, float] | None:
    """The majority's share and 3 standard errors of it, if `accuracy` is not above their sum.

    s = share of the most frequent class,   error = sqrt(s (1 - s) / n): a network that always
    answers that class stays below s + 3 errors with a chance of 99.9 % on n new images.
    """
    counts: dict[int, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    share = max(counts.values()) / len(labels)
    errors = 3 * math.sqrt(share * (1 - share) / len(labels))
    return (share, errors) if accuracy <= share + errors and share < 1 else None


def told_chance(accuracy: float, data: DataSplits) -> str | None:
    """A warning if given weights do not tell the classes apart; None if they do."""
    found = near_chance(accuracy, data.validation.labels.tolist())
    if found is None:
        return None
    share, errors = found
    return (
        f"warning: the given weights are near chance on validation: accuracy {accuracy:.4f}, the "
        f"most frequent class has {share:.4f} of {len(data.validation):,} images (3 standard "
        f"errors: {errors:.4f}); likely causes: another normalisation than in training (in use: "
        f"{normalisation_in(data)}; --mean and --std change it), another order of the classes, or "
        "weights that were never trained"
    )
