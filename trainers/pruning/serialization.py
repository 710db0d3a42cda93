"""Pruned networks on disk: a recipe and its weights; loading cuts the dense network again.

No file is executed: a recipe is plain JSON, and the weights are safetensors whose hash is in the
recipe. They are weights.safetensors in a trial's folder and model.safetensors in a picked one. To
replace a network, new weights are written as next.safetensors, then the recipe, and then the file
is renamed. The recipe's hash identifies the valid file, so the folder can be loaded at any time.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap, channel_map_digest
from ...spaces.graph.trace import trace_channel_map
from ...spaces.graph.working_copy import make_working_copy
from ...spaces.io.atomic_write import commit_file, write_bytes_atomic, write_json_atomic
from ...spaces.io.bounded_read import read_bounded
from ...spaces.records.recipe import Recipe, read_recipe
from ...spaces.version import VERSION
from ..models.build import build_model
from ..models.weights import load_weights
from ..training.checkpoint import cpu_copies
from .surgery import output_widths, prune_network

RECIPE_FILE, TRIAL_WEIGHTS_FILE, PICKED_WEIGHTS_FILE, NEXT_WEIGHTS_FILE = (
    "recipe.json", "weights.safetensors", "model.safetensors", "next.safetensors"
)  # fmt: skip
PRUNED_WEIGHTS_FILES = (PICKED_WEIGHTS_FILE, TRIAL_WEIGHTS_FILE, NEXT_WEIGHTS_FILE)
DENSE_WEIGHTS_FILE = "dense.safetensors"  # only for the teacher of a fine-tune
MAX_HEADER_BYTES = 1 << 20  # of a safetensors header, plus HEADER_BYTES_PER_TENSOR
HEADER_BYTES_PER_TENSOR = 1 << 10


@dataclass(frozen=True, slots=True, eq=False)
class LoadedNetwork:
    """A pruned network, its recipe, and a working copy of the dense network.

    The dense network has random weights, or those of the module that the user passed.
    """

    model: nn.Module
    recipe: Recipe
    dense: nn.Module
    channel_map: ChannelMap

    @property
    def widths(self) -> dict[str, int]:
        """The number of kept output channels of every layer."""
        return output_widths(self.channel_map, self.recipe.mask)


def software_versions() -> dict[str, str]:
    """The software versions that are written to a recipe."""
    return {"paretoprune": VERSION, "torch": torch.__version__}


def load_network(folder: Path, model: nn.Module | None = None) -> LoadedNetwork:
    """Load the pruned network in `folder`.

    Args:
        folder: The folder of a trial or a picked network.
        model: The dense network, if it is not from the zoo or torchvision.

    Raises:
        UserError: if files are missing or damaged, or `model` is another network.
    """
    recipe = read_recipe(folder / RECIPE_FILE)
    source = recipe.source
    dense, _ = make_working_copy(build_dense_model(recipe) if model is None else model)
    channel_map = trace_channel_map(dense, source.input_shape, keep=source.keep)
    return LoadedNetwork(load_pruned_model(folder, dense, channel_map), recipe, dense, channel_map)


def build_dense_model(recipe: Recipe) -> nn.Module:
    """Build the dense network of a recipe from the zoo or torchvision; else UserError."""
    source = recipe.source
    if source.name is None or (":" in source.name and not source.name.startswith("torchvision:")):
        what = f"model {source.name!r}" if source.name else "a model passed in Python"
        raise UserError(
            f"code that a recipe names is never imported, got {what}; pass it: --model "
            "module:function"
        )
    return build_model(source.name, classes=source.classes, input_shape=source.input_shape, seed=0)


def build_user_model(name: str | None, recipe: Recipe) -> nn.Module | None:
    """Build the `module:function` of the command line; None without a name."""
    source = recipe.source
    if name is None:
        return None
    return build_model(name, classes=source.classes, input_shape=source.input_shape, seed=0)


def load_pruned_model(folder: Path, dense: nn.Module, channel_map: ChannelMap) -> nn.Module:
    """Cut `dense` (a working copy) to the recipe's mask and load the weights in `folder`."""
    recipe = read_recipe(folder / RECIPE_FILE)
    if recipe.map_sha256 != channel_map_digest(channel_map) or recipe.atoms != channel_map.atoms:
        raise UserError(
            f"a recipe fits the network that it was made from, got another one for {folder}; "
            "pass that network, unpruned"
        )
    if recipe.widths and recipe.widths != output_widths(channel_map, recipe.mask):
        raise UserError(
            f"a recipe's widths must be those of its mask, got others in {folder}; pick it again"
        )
    small = prune_network(dense, channel_map, recipe.mask)
    path, tensors = read_verified_tensors(
        folder, PRUNED_WEIGHTS_FILES, recipe.weights_sha256, small
    )
    load_tensors(small, tensors, path)
    return small.eval()


def load_teacher(
    folder: Path, loaded: LoadedNetwork, weights: Path | None, model: nn.Module | None = None
) -> nn.Module | None:
    """The dense network with the weights of `weights` or of the folder; None without either."""
    recipe = loaded.recipe
    if weights is not None:  # its names are those of the original, not of the working copy
        original = build_dense_model(recipe) if model is None else copy.deepcopy(model)
        load_weights(original, weights)
        return make_working_copy(original)[0]
    if recipe.dense_sha256 is None or not (folder / DENSE_WEIGHTS_FILE).exists():
        return None
    teacher = copy.deepcopy(loaded.dense)
    path, tensors = read_verified_tensors(
        folder, (DENSE_WEIGHTS_FILE,), recipe.dense_sha256, teacher
    )
    load_tensors(teacher, tensors, path)
    return teacher.eval()


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors into a model; every key and shape must match."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:160]
        raise UserError(f"{path} must fit its recipe, got {fault}") from None


def read_verified_tensors(
    folder: Path, names: tuple[str, ...], sha256: str, model: nn.Module
) -> tuple[Path, dict[str, Tensor]]:
    """The file with the recipe's hash, and its tensors. A file larger than `model` is rejected."""
    tensors = model.state_dict().values()
    tensor_bytes = sum(t.numel() * t.element_size() + HEADER_BYTES_PER_TENSOR for t in tensors)
    content, path = read_verified_bytes(folder, sha256, tensor_bytes + MAX_HEADER_BYTES, names)
    return path, parse_safetensors(content, path)


def read_verified_bytes(
    folder: Path, sha256: str, max_bytes: int, names: tuple[str, ...] = PRUNED_WEIGHTS_FILES
) -> tuple[bytes, Path]:
    """The bytes and the path of the first of these files with this hash."""
    found: Path | None = None
    for path in (folder / name for name in names):
        try:
            content = read_bounded(path, max_bytes)
        except OSError:
            continue
        if hashlib.sha256(content).hexdigest() == sha256:
            return content, path
        found = path
    if found is None:
        raise UserError(
            f"a network's folder must hold {' or '.join(names[:2])}, got none in {folder} that "
            "can be read; only networks on the front keep their weights"
        )
    raise UserError(
        f"weights must have the sha256 of their recipe, got another in {found}; "
        "the file was truncated or replaced: pick the network again"
    )


def parse_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """Parse the bytes of a safetensors file."""
    try:
        tensors: dict[str, Tensor] = from_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} must be a safetensors file, got {error}") from None
    return {name: torch.clone(tensor) for name, tensor in tensors.items()}


def to_safetensors_bytes(model: nn.Module) -> bytes:
    """The state dict of a network as the bytes of a safetensors file."""
    return as_safetensors(cpu_copies(model.state_dict()))


def save_network(folder: Path, recipe: Recipe, weights: bytes) -> None:
    """Write or replace the network of a folder; `recipe` contains the hash of `weights`."""
    write_bytes_atomic(folder / NEXT_WEIGHTS_FILE, weights)
    write_json_atomic(folder / RECIPE_FILE, recipe.to_json())
    commit_file(folder / NEXT_WEIGHTS_FILE, folder / PICKED_WEIGHTS_FILE)
