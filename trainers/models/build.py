"""Build networks by name: the zoo, torchvision's classifiers and the user's functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.outputs import element_of
from ..runtime.device import device_of
from ..runtime.modes import eval_mode
from ..runtime.user_code import call_user_function, describe_exception

# Name -> (module of `zoo`, function); imported on demand.
ZOO_BUILDERS = {
    "digits-resnet": ("digits_resnet", "digits_resnet"),
    "fc": ("lenet", "lenet300"),
    "lenet5": ("lenet", "lenet5"),
    "vgg16": ("vgg", "vgg16"),
    "resnet20": ("resnet", "resnet20"),
    "resnet32": ("resnet", "resnet32"),
    "resnet44": ("resnet", "resnet44"),
    "resnet56": ("resnet", "resnet56"),
    "resnet110": ("resnet", "resnet110"),
    "densenet40": ("densenet", "densenet40"),
}


def build_model(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, ...],
    seed: int,
    any_task: bool = False,
) -> nn.Module:
    """Build a network by name. Its random weights depend on the seed only.

    Args:
        name: A name of ZOO_BUILDERS, `torchvision:NAME`, or `module:function`.
        classes: The number of classes.
        input_shape: The shape of an image, (channels, height, width).
        seed: The seed of the weights; the global random state does not change.
        any_task: Accept networks that are not classifiers of such images.

    Raises:
        UserError: if the name is unknown or the network does not fit the data.

    Example:
        >>> model = build_model("resnet20", classes=10, input_shape=(3, 32, 32), seed=0)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build_by_name(name, classes, input_shape)
    if not any_task:
        check_model_output(model, name, classes, input_shape)
    return model


@torch.no_grad()
def check_model_output(
    model: nn.Module, name: str, classes: int, input_shape: tuple[int, ...]
) -> int:
    """Raise UserError for a network that cannot take the images or lacks scores for classes.

    Returns:
        The number of classes that it scores, which may be larger than `classes`.
    """
    try:
        with eval_mode(model):
            output = model(torch.zeros((2, *input_shape), device=device_of(model)))
    except Exception as error:  # a user's forward may raise anything
        remedy = "choose a network or an image size that fit each other"
        if len(input_shape) == 2:
            remedy = "add a channel axis to the images: images[:, None]"
        raise UserError(
            f"model {name!r} must take images of shape {input_shape}, got a failure "
            f"({describe_exception(error)}); {remedy}"
        ) from error
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] < classes:
        raise UserError(
            f"model {name!r} must give {classes} scores per image, got shape "
            f"{tuple(output.shape[1:])}; set its number of classes to {classes}, or correct the "
            f"labels if none should be {classes - 1}"
        )
    element = element_of(output, classes, who=f"model {name!r}")
    if len(element.tensor) != 2:
        raise UserError(
            f"model {name!r} must return one row of scores per image, got {element} for 2 images; "
            "keep the batch as the first dimension"
        )
    return int(element.tensor.shape[1])


def surplus_notes(scored: int, classes: int) -> tuple[str, ...]:
    """A warning if the network scores classes that the data lack."""
    if scored <= classes:
        return ()
    return (
        f"warning: the network scores {scored:,} classes, the data have {classes:,} (the largest "
        "label + 1); if it should score only these, set its number of classes (a function gets "
        "it through a parameter named classes or num_classes); if not, labels must be numbered as "
        "in the network",
    )


def stock_notes(name: str) -> tuple[str, ...]:
    """A note about the initial weights of a torchvision network."""
    kind, _, rest = name.partition(":")
    if kind != "torchvision" or not rest:
        return ()
    from .zoo.torchvision_models import notes_of

    return notes_of(rest)


def _build_by_name(name: str, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    kind, _, rest = name.partition(":")
    offered = {"classes": classes, "num_classes": classes, "input_shape": input_shape}
    if name in ZOO_BUILDERS:
        module, function = ZOO_BUILDERS[name]
        build: Callable[..., nn.Module] = getattr(
            import_module(f".zoo.{module}", __package__), function
        )
        return build(classes=classes, channels=input_shape[0])
    if kind == "torchvision" and rest:
        from .zoo.torchvision_models import build_torchvision

        return build_torchvision(rest, classes=classes, input_shape=input_shape)
    if rest:
        model = call_user_function(name, "model", offered)
        if not isinstance(model, nn.Module):
            raise UserError(
                f"model {name!r} must return a torch.nn.Module, got {type(model).__name__}; "
                "return the network itself"
            )
        return model
    known = ", ".join(ZOO_BUILDERS)
    raise UserError(
        f"model must be one of {known}, torchvision:NAME or module:factory, got {name!r}; "
        "pick one of these"
    )
