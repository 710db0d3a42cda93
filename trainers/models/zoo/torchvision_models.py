"""`torchvision:NAME`: any classification model, its head fitted to the classes.

Stock weights are used when they already lie in torch's cache; nothing is ever downloaded here.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from ....spaces.errors import UserError

# Names in DenseNets' stock files, norm.1 where the network has norm1.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
SCALED_BY_HALF = NEEDS_INIT_WEIGHTS = ("googlenet", "inception_v3")  # torchvision asks to choose


def build_torchvision(name: str, *, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """The model with `classes` outputs; cached stock weights fill all that fits."""
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
    """Which weights `build_torchvision` gives a model."""
    file = cached_weights_path(name)
    if file is None:
        return (
            f"torchvision:{name} begins with random weights: torch's cache has no stock weights "
            "of it",
        )
    found = f"torchvision:{name} begins with the stock weights {file.name} from torch's cache"
    if name in SCALED_BY_HALF:
        return (f"warning: {found}, which were trained on images of mean 0.5 and std 0.5",)
    return (found,)


def cached_weights_path(name: str) -> Path | None:
    """The file of the model's default weights in torch's cache, if it is there."""
    import torchvision.models as zoo

    url = str(zoo.get_model_weights(name).DEFAULT.url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return file if file.is_file() else None


def _load_matching_tensors(model: nn.Module, file: Path, classes: int) -> None:
    """Copy the stock tensors; only heads for another number of classes may be left out."""
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    stock = {OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in loaded.items()}
    fits = {}
    for key, own in model.state_dict().items():
        tensor = stock.get(key)
        if tensor is not None and tensor.shape == own.shape:
            fits[key] = tensor
        elif not key.endswith("num_batches_tracked") and (
            tensor is None or own.shape[:1] != (classes,) or own.shape[1:] != tensor.shape[1:]
        ):
            raise UserError(
                f"stock weights must fit the network, got {file} without a {key!r} of shape "
                f"{tuple(own.shape)}; delete the file, or pass --weights"
            )
    model.load_state_dict(fits, strict=False)


def _suggest_names(name: str, names: list[str]) -> str:
    import difflib

    return ", ".join(difflib.get_close_matches(name, names, 3, 0.3)) or "resnet18, resnet50"
