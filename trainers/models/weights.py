"""Weights from files a user names: safetensors, or torch files without running their code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError

STATE_DICT_KEYS = ("state_dict", "model", "model_state_dict", "net", "ema")
TORCH_FILE_MAGIC = (b"PK", b"\x80")  # an archive, or a pickle as torch wrote them before
STATISTICS = ("running_mean", "running_var")
KEY_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(model: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Fill the model, in place, from a file; every key and shape must match.

    Returns:
        Notes for the user: which of several state dicts in the file was used.
    """
    path = Path(path)
    found, notes = read_state_dict(path)
    state = strip_key_prefixes(found, model.state_dict())
    problem = first_mismatch(state, model.state_dict())
    if problem is not None:
        raise UserError(
            f"weights must fit the network, got {path.name} where {problem}; "
            "name the architecture that they were trained on"
        )
    check_finite(model, state, path.name)
    model.load_state_dict(state, strict=False)  # only counters of batch norms may be missing
    return notes


def check_finite(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights and statistics of norms that are NaN or infinite; other buffers may be."""
    parameters = dict(model.named_parameters())
    for key, tensor in state.items():
        if key not in parameters and not key.endswith(STATISTICS):
            continue
        if tensor.is_floating_point() and not tensor.isfinite().all():
            value = float(tensor[~tensor.isfinite()].flatten()[0])
            raise UserError(
                f"weights must be finite, got {value} in {key!r} of {what}; use a checkpoint from "
                "before the training diverged"
            )


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors by name in a .safetensors, .pth or .th file, out of any known wrapper; notes."""
    if not path.is_file():
        raise UserError(f"weights must be a file, got {path} which does not exist; check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path), ()
    with path.open("rb") as file:
        begins = file.read(4)
    if not begins.startswith(TORCH_FILE_MAGIC):
        found = "starts like none" if begins else "is empty"
        raise UserError(
            f"weights must be a torch file, got {path} which {found}; "
            "pass a .safetensors, .pth or .th file"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ").partition("Unsupported")[2] or "not plain tensors"
        raise UserError(
            f"weights must hold tensors only, got {path} which asks to run code "
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
            f"weights must be a whole safetensors file, got {path} which is not ({error}); "
            "copy it again"
        ) from None


def extract_state_dict(content: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in what a training script saved, and a note if there were others."""
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
                "not; save the one that you mean as a file of its own",
            )
        content = content[inner]
    raise UserError(
        f"weights must hold a state dict, got {path} without one; save model.state_dict()"
    )


def holds_weights(value: object) -> bool:
    """Whether a part of a checkpoint is a state dict, maybe in a wrapper; no optimiser is one."""
    if not isinstance(value, Mapping):
        return False
    inner = next((value[w] for w in STATE_DICT_KEYS if isinstance(value.get(w), Mapping)), value)
    return any(isinstance(tensor, Tensor) for tensor in inner.values())


def strip_key_prefixes(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes that DataParallel, torch.compile and trainers put before them."""
    for prefix in KEY_PREFIXES * 2:
        if any(k in own for k in state) or not all(k.startswith(prefix) for k in state):
            continue
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def first_mismatch(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """The first key that is missing, of another shape, or too many; counters may be missing."""
    for key, tensor in own.items():
        if key not in state:
            if key.endswith("num_batches_tracked"):
                continue
            return f"{key!r} is missing"
        if state[key].shape != tensor.shape:
            return f"{key!r} has shape {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
    extra = next((k for k in state if k not in own), None)
    return None if extra is None else f"{extra!r} is unknown to the network"
