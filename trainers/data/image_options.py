"""The image options mean, std and augmentation: parse, check, apply and describe them.

This module does not import torch: the command line checks its options before heavy imports.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...spaces.errors import UserError
from .augmentation_names import AUGMENTATIONS, check_augment

if TYPE_CHECKING:
    from .splits import DataSplits

ChannelValues = tuple[float, ...]
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
PRESETS: dict[str, tuple[ChannelValues, ChannelValues]] = {
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
MAX_SHOWN_VALUES = 4  # numbers of a mean or std in a message

# The default augmentation of a source and its reason; other sources have OTHER_AUGMENTATION.
DEFAULT_AUGMENTATIONS = {
    "cifar10": ("flip-crop", "as in the published recipes"),
    "cifar100": ("flip-crop", "as in the published recipes"),
    "digits": ("none", "as a flip changes a digit"),
    "mnist": ("none", "as a flip changes a digit"),
}
OTHER_AUGMENTATION = ("none", "as a flip or a crop may change what an image shows")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The user's mean, std and augmentation; None: the value of the data."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: str | None = None


def image_options(mean: str | None, std: str | None, augment: str | None) -> ImageOptions:
    """Parse the options of a command or a call.

    Raises:
        UserError: if an option is malformed, or the mean is given without the std or vice versa.
    """
    if augment is not None:
        check_augment(augment)
    if mean is None and std is None:
        return ImageOptions(augment=augment)
    if mean is None:
        raise UserError(f"--std must come with --mean, got --std {std} alone; add --mean")
    if mean in PRESETS:
        preset = PRESETS[mean]
        if std not in (None, mean) and (std in PRESETS or parse_values("--std", std) != preset[1]):
            raise UserError(
                f"--mean {mean} sets both, got --std {std} too; leave out --std, or write "
                "numbers for both"
            )
        return ImageOptions(*preset, augment)
    values = parse_values("--mean", mean)
    if std is None:
        raise UserError(
            f"--mean must come with --std unless it is one of {', '.join(PRESETS)}, got --mean "
            f"{mean} alone; add --std"
        )
    if std in PRESETS:
        raise UserError(
            f"--std must be numbers where --mean is, got {std}; write its numbers, or --mean {std}"
        )
    return ImageOptions(values, parse_values("--std", std), augment)


def parse_values(option: str, text: str) -> ChannelValues:
    """Parse one number or several separated by commas, for images scaled to 0..1."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        remedy = f"write 0.5, 0.485,0.456,0.406 or one of {', '.join(PRESETS)}"
        raise UserError(f"{option} must be numbers, got {text}; {remedy}") from None
    for value in values:
        check_value(option, value)
    return values


def check_value(option: str, value: float) -> None:
    """Raise UserError for a mean outside [0, 1] or a std outside (0, 1]."""
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
    """Raise UserError if the number of values fits no channel count of the named source."""
    channels = CHANNELS.get(name.partition(":")[0])
    if channels is not None:
        check_counts(options, channels)


def check_counts(options: ImageOptions, channels: Sequence[int]) -> None:
    """Raise UserError unless there is one value for all channels or one per channel."""
    for option, values in (("--mean", options.mean), ("--std", options.std)):
        if values is not None and len(values) not in (1, *channels):
            found = " or ".join(map(str, channels))
            raise UserError(
                f"{option} must be one number or one for each channel ({found}), got "
                f"{len(values)} numbers; one number stands for all channels"
            )


def with_options(data: DataSplits, options: ImageOptions) -> DataSplits:
    """Apply the options to the data.

    Raises:
        UserError: if the options do not fit the images.
    """
    shape = tuple(data.input_shape)
    check_counts(options, shape[:1])
    if options.augment not in (None, "none") and len(shape) != 3:
        raise UserError(
            f"--augment {options.augment} needs images of shape (channels, height, width), got "
            f"{shape}; write --augment none"
        )
    if options.mean is None or options.std is None:
        return replace(data, augment=options.augment or data.augment)
    mean, std = per_channel(options.mean, shape[0]), per_channel(options.std, shape[0])
    low, high = float_range(data)
    changed = (mean, std) != (tuple(data.mean), tuple(data.std))
    if changed and normalises(mean, std) and not (low >= 0 and high <= 1):
        raise UserError(
            f"--mean and --std must be for images in 0..1, got float images from {low:.4g} to "
            f"{high:.4g}; leave both out if you normalised the images yourself"
        )
    return replace(data, mean=mean, std=std, augment=options.augment or data.augment)


def with_recorded(data: DataSplits, recorded: ImageOptions) -> DataSplits:
    """Apply the options of a recipe. Float images outside 0..1 keep the user's own scale."""
    low, high = float_range(data)
    if recorded.mean is None or recorded.std is None or not (low >= 0 and high <= 1):
        recorded = replace(recorded, mean=None, std=None)
    return with_options(data, recorded)


def options_in(data: DataSplits) -> ImageOptions:
    """The image options of the data, with mean and std as numbers."""
    return ImageOptions(
        tuple(map(float, data.mean)), tuple(map(float, data.std)), augment=data.augment
    )


def per_channel(values: ChannelValues, channels: int) -> ChannelValues:
    """Repeat a single value for every channel."""
    return values * channels if len(values) == 1 else values


def normalises(mean: ChannelValues, std: ChannelValues) -> bool:
    """True if mean and std change an image."""
    return any(mean) or any(value != 1 for value in std)


def float_range(data: DataSplits) -> tuple[float, float]:
    """The smallest and largest value of float training images; (0, 1) for all others."""
    images = data.train.images
    if not images.is_floating_point() or images.numel() == 0:
        return 0.0, 1.0
    low, high = images.aminmax()
    return float(low), float(high)


def format_values(values: ChannelValues) -> str:
    """Mean or std as text; only the first values of a long one."""
    text = ", ".join(f"{value:.4g}" for value in values[:MAX_SHOWN_VALUES])
    return text if len(values) <= MAX_SHOWN_VALUES else f"{text}, ..."


def format_normalisation(data: DataSplits) -> str:
    """Mean and std as text."""
    return f"mean {format_values(data.mean)}; std {format_values(data.std)}"


def describe_normalisation(
    data: DataSplits, given: ImageOptions, recorded: str | None = None
) -> str:
    """The message about mean and std; `recorded` names their source if the user gave none."""
    if given.mean is not None:
        reason = "as given"
    elif recorded is not None:
        reason = f"from {recorded}"
    elif data.train.images.is_floating_point():
        reason = "float images are used as they are"
    else:
        reason = f"the default for {describe_source(data)}; --mean and --std set other values"
    return f"normalisation: {format_normalisation(data)} ({reason})"


def describe_augmentation(
    data: DataSplits, given: ImageOptions, recorded: str | None = None
) -> str:
    """The message about the augmentation and how to change it."""
    default, default_reason = default_augmentation(data.name)
    off = data.augment == "none"
    change = "crop or flip-crop turns it on" if off else "none turns it off"
    if given.augment is not None:
        reason = "as given"
    elif recorded is not None:
        reason = f"from {recorded}; --augment {change}"
    elif data.augment == default:
        reason = f"the default for {describe_source(data)}, {default_reason}; --augment {change}"
    else:
        reason = f"set by the data; --augment {change}"
    return f"augmentation: {data.augment} ({reason})"


def default_augmentation(name: str) -> tuple[str, str]:
    """The default augmentation of a source and its reason."""
    return DEFAULT_AUGMENTATIONS.get(name.partition(":")[0], OTHER_AUGMENTATION)


def describe_source(data: DataSplits) -> str:
    """The kind of data as text."""
    kind, colon, _ = data.name.partition(":")
    if kind in CHANNELS:
        return f"{kind}:DIR" if colon else kind
    return "your own data"


def near_chance(accuracy: float, labels: Sequence[int]) -> tuple[float, float] | None:
    """The majority class's share s and 3 of its standard errors if `accuracy` is within them.

    error = sqrt(s (1 - s) / n). With a probability of 99.9 %, a network that always predicts the
    majority class has an accuracy below s + 3 errors on n new images. None: above chance.
    """
    counts: dict[int, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    share = max(counts.values()) / len(labels)
    errors = 3 * math.sqrt(share * (1 - share) / len(labels))
    return (share, errors) if accuracy <= share + errors and share < 1 else None


def chance_warning(accuracy: float, data: DataSplits) -> str | None:
    """A warning if the accuracy of the given weights is near chance, else None."""
    found = near_chance(accuracy, data.validation.labels.tolist())
    if found is None:
        return None
    share, errors = found
    return (
        f"warning: the given weights are near chance on validation: accuracy {accuracy:.4f}, the "
        f"most frequent class has {share:.4f} of {len(data.validation):,} images (3 standard "
        f"errors: {errors:.4f}); likely causes: another normalisation than in training (in use: "
        f"{format_normalisation(data)}; --mean and --std change it), another order of the "
        "classes, or weights that were never trained"
    )
