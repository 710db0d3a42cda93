"""Small networks on disk: a recipe and safetensors beside it; rebuilt by cutting the dense network.

Nothing here runs code from a file: a recipe is plain JSON, weights are safetensors, and both carry
hashes that must agree.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from ..spaces.channels import ChannelMap, map_digest
from ..spaces.errors import UserError
from ..spaces.recipe import Recipe, read_recipe
from ..spaces.trace import trace_channels
from ..spaces.working_copy import working_copy
from .models import build_model
from .surgery import cut

WEIGHTS, RECIPE = "weights.safetensors", "recipe.json"


def load_network(folder: Path, model: nn.Module | None = None) -> tuple[nn.Module, Recipe]:
    """The small network in `folder`; `model` is its dense network where no zoo name rebuilds it."""
    recipe = read_recipe(folder / RECIPE)
    source = recipe.source
    if model is None:
        model = build_named(recipe)
    copy, _ = working_copy(model)
    channel_map = trace_channels(copy, source.input_shape, keep=source.keep)
    return load_small(folder, copy, channel_map), recipe


def build_named(recipe: Recipe) -> nn.Module:
    """The dense network of a recipe, if its name is one of the zoo's or torchvision's."""
    source = recipe.source
    if source.name is None or (":" in source.name and not source.name.startswith("torchvision:")):
        what = f"model {source.name!r}" if source.name else "a model passed in Python"
        raise UserError(
            f"a recipe's own code is never imported, got {what}; pass it: load(path, model=...)"
        )
    return build_model(source.name, classes=source.classes, input_shape=source.input_shape, seed=0)


def load_small(folder: Path, dense: nn.Module, channel_map: ChannelMap) -> nn.Module:
    """Cut `dense` (a working copy) as the recipe says and load the weights beside it."""
    recipe = read_recipe(folder / RECIPE)
    if recipe.map_sha256 != map_digest(channel_map) or recipe.atoms != channel_map.atoms:
        raise UserError(
            f"a recipe fits the network that it was made from, got another one for {folder}; "
            "pass that network, unpruned"
        )
    small = cut(dense, channel_map, recipe.mask)
    tensors = read_weights(folder / WEIGHTS, recipe.weights_sha256)
    try:
        small.load_state_dict(tensors)
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:160]
        raise UserError(f"{folder / WEIGHTS} must fit its recipe, got {fault}") from None
    return small.eval()


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, once its hash is the recipe's."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"a network's folder must hold {path.name}, got none in {path.parent} "
            f"({error.strerror}); only networks on the front keep their weights"
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"weights must have the sha256 that their recipe names, got another in {path}; "
            "the file was cut short or replaced: pick the network again"
        )
    try:
        tensors: dict[str, Tensor] = from_safetensors(content)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} must be a safetensors file, got {error}") from None
    return {name: torch.clone(tensor) for name, tensor in tensors.items()}
