"""`torchvision:NAME`: any classification model, with a head for the given number of classes.

Pretrained weights are used if they are in torch's cache; nothing is downloaded.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from ....spaces.errors import UserError

# DenseNets' pretrained files name a layer norm.1 that the network calls norm1.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
NEEDS_INIT_WEIGHTS = ("googlenet", "inception_v3")  # torchvision warns without this argument
SCALED_BY_HALF = NEEDS_INIT_WEIGHTS  # trained on images of mean 0.5 and std 0.5


def build_torchvision(name: str, *, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Build the model with `classes` outputs and load its cached pretrained weights, if any."""
    import torchvision.models as zoo

    names = zoo.list_models(module=zoo)
    if name not in names:
        raise UserError(
            f"torchvision:NAME must be a classification model, got {name!r}; "
            f"close names are {_suggest_names(name, names)}"
        )
    if len(input_shape) != 3 or input_shape[0] != 3:
        raise UserError(
            f"torchvision models take 3-channel images, got input shape {input_shape}; "
            "convert the images to RGB"
        )
    extra = {"init_weights": True} if name in NEEDS_INIT_WEIGHTS else {}
    model: nn.Module = zoo.get_model(name, weights=None, num_classes=classes, **extra)
    file = cached_weights_path(name)
    if file is not None:
        _load_matching_tensors(model, file, classes)
    return model


def notes_of(name: str) -> tuple[str, ...]:
    """A note about the weights that `build_torchvision` loads."""
    file = cached_weights_path(name)
    if file is None:
        return (
            f"torchvision:{name} starts with random weights: torch's cache has no pretrained "
            "weights of it",
        )
    found = f"torchvision:{name} starts with the pretrained weights {file.name} from torch's cache"
    if name in SCALED_BY_HALF:
        return (f"warning: {found}, which were trained on images of mean 0.5 and std 0.5",)
    return (found,)


def cached_weights_path(name: str) -> Path | None:
    """The file of the model's default weights in torch's cache; None if it is not there."""
    import torchvision.models as zoo

    url = str(zoo.get_model_weights(name).DEFAULT.url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return file if file.is_file() else None


def _load_matching_tensors(model: nn.Module, file: Path, classes: int) -> None:
    """Load the pretrained tensors, except heads for another number of classes."""
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    pretrained = {OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in loaded.items()}
    matching = {}
    for key, own in model.state_dict().items():
        tensor = pretrained.get(key)
        if tensor is not None and tensor.shape == own.shape:
            matching[key] = tensor
        elif not key.endswith("num_batches_tracked") and (
            tensor is None or own.shape[:1] != (classes,) or own.shape[1:] != tensor.shape[1:]
        ):
            raise UserError(
                f"pretrained weights must fit the network, got {file} without a {key!r} of shape "
                f"{tuple(own.shape)}; delete the file, or pass --weights"
            )
    model.load_state_dict(matching, strict=False)


def _suggest_names(name: str, names: list[str]) -> str:
    import difflib

    return ", ".join(difflib.get_close_matches(name, names, 3, 0.3)) or "resnet18, resnet50"
