"""Load weights from safetensors or torch files, without running code from a file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError

STATE_DICT_KEYS = ("state_dict", "model", "model_state_dict", "net", "ema")
TORCH_FILE_MAGIC = (b"PK", b"\x80")  # a zip archive, or a pickle as older versions of torch write
NORM_STATISTICS = ("running_mean", "running_var")
KEY_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(model: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Load weights from a file into the model; every key and shape must match.

    Returns:
        Notes for the user: which of several state dicts in the file is used.

    Raises:
        UserError: if the file cannot be read, does not fit or has values that are not finite.
    """
    path = Path(path)
    found, notes = read_state_dict(path)
    state = strip_key_prefixes(found, model.state_dict())
    problem = first_mismatch(state, model.state_dict())
    if problem is not None:
        raise UserError(
            f"weights must fit the network, got {path.name} where {problem}; "
            "choose the architecture that they were trained with"
        )
    check_finite(model, state, path.name)
    model.load_state_dict(state, strict=False)  # only counters of batch norms may be missing
    return notes


def check_finite(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Raise UserError for NaN or infinite parameters and norm statistics."""
    parameters = dict(model.named_parameters())
    for key, tensor in state.items():
        if key not in parameters and not key.endswith(NORM_STATISTICS):
            continue
        if tensor.is_floating_point() and not tensor.isfinite().all():
            value = float(tensor[~tensor.isfinite()].flatten()[0])
            raise UserError(
                f"weights must be finite, got {value} in {key!r} of {what}; use a checkpoint from "
                "before the training diverged"
            )


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read the state dict of a .safetensors, .pth or .th file, and notes for the user."""
    if not path.is_file():
        raise UserError(f"weights must be a file, got {path} which does not exist; check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path), ()
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic.startswith(TORCH_FILE_MAGIC):
        found = "has another format" if magic else "is empty"
        raise UserError(
            f"weights must be a torch file, got {path} which {found}; "
            "pass a .safetensors, .pth or .th file"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ").partition("Unsupported")[2] or "not plain tensors"
        raise UserError(
            f"weights must hold tensors only, got {path} which would run code "
            f"({reason.split('.')[0].strip()[:120]}); save it again as safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        first = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        raise UserError(
            f"weights must be a torch file, got {path} which cannot be read ({first}); "
            "pass a .safetensors, .pth or .th file"
        ) from None
    return extract_state_dict(content, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"weights must be an intact safetensors file, got {path} which is not ({error}); "
            "copy it again"
        ) from None


def extract_state_dict(content: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the state dict in a training script's checkpoint; a note names the others."""
    notes: tuple[str, ...] = ()
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        inner = next((w for w in STATE_DICT_KEYS if isinstance(content.get(w), Mapping)), None)
        if inner is None and tensors:
            return tensors, notes
        if inner is None:
            break
        others = [str(k) for k, v in content.items() if k != inner and holds_weights(v)]
        if others:
            notes += (
                f"weights: {inner!r} of {path.name} is used, {', '.join(map(repr, others))} is "
                "not; to use another one, save it to its own file",
            )
        content = content[inner]
    raise UserError(
        f"weights must hold a state dict, got {path} without one; save model.state_dict()"
    )


def holds_weights(value: object) -> bool:
    """True for a state dict, also inside a wrapper; False for the state of an optimizer."""
    if not isinstance(value, Mapping):
        return False
    inner = next((value[w] for w in STATE_DICT_KEYS if isinstance(value.get(w), Mapping)), value)
    return any(isinstance(tensor, Tensor) for tensor in inner.values())


def strip_key_prefixes(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the key prefixes of DataParallel, torch.compile and common trainers."""
    for prefix in KEY_PREFIXES * 2:
        if any(k in own for k in state) or not all(k.startswith(prefix) for k in state):
            continue
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def first_mismatch(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """Describe the first missing, mismatched or unknown key; batch counters may be missing."""
    for key, tensor in own.items():
        if key not in state:
            if key.endswith("num_batches_tracked"):
                continue
            return f"{key!r} is missing"
        if state[key].shape != tensor.shape:
            return f"{key!r} has shape {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
    extra = next((k for k in state if k not in own), None)
    return None if extra is None else f"{extra!r} is unknown to the network"
