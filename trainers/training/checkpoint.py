"""Checkpoints of a training session: one safetensors file with the complete state.

A single file can be replaced atomically by one rename. Its header holds the settings of the run; a
checkpoint with other settings is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import commit_file, partial_path
from .session import TrainingSession

SCHEMA = 1


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict of a model to a safetensors file, atomically."""
    save_tensors(model.state_dict(), path, {})


def weights_digest(model: nn.Module) -> str:
    """The SHA-256 of a network's state dict."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_session(session: TrainingSession, path: Path, settings: Mapping[str, object]) -> None:
    """Write the model, the optimizer, the averaged weights and the step.

    `settings` identify the run; `restore_session` compares them.
    """
    tensors = {f"model/{k}": v for k, v in session.model.state_dict().items()}
    for index, state in session.optimizer.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{k}": v for k, v in state.items() if v is not None}
    if session.ema_model is not None:
        tensors |= {f"average/{k}": v for k, v in session.ema_model.state_dict().items()}
    record = {"schema": SCHEMA, "step": session.step, "settings": dict(settings)}
    save_tensors(tensors, path, {"session": json.dumps(record)})


def restore_session(session: TrainingSession, path: Path, settings: Mapping[str, object]) -> None:
    """Restore the state of a session from a checkpoint.

    Raises:
        UserError: if the checkpoint is damaged or was written with other settings.
    """
    record = _read_header(path)
    check_same_settings(read_checkpoint_settings(path), settings, path)
    tensors = load_file(path)
    session.model.load_state_dict(_tensors_under("model/", tensors))
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _tensors_under("optimiser/", tensors).items():
        index, _, name = key.partition("/")
        states.setdefault(int(index), {})[name] = tensor
    groups = session.optimizer.state_dict()["param_groups"]
    session.optimizer.load_state_dict({"state": states, "param_groups": groups})
    if session.ema_model is not None:
        session.ema_model.load_state_dict(_tensors_under("average/", tensors))
    session.seek(int(str(record["step"])))


def check_same_settings(
    found: Mapping[str, object], settings: Mapping[str, object], path: Path
) -> None:
    """Raise UserError if the settings in a file (`found`) are not those of this run."""
    expected = json.loads(json.dumps(dict(settings)))
    for key in sorted({*expected, *found}):
        if expected.get(key) != found.get(key):
            raise UserError(
                f"a run must be resumed with the settings that it started with, got {key} = "
                f"{expected.get(key)!r} instead of {found.get(key)!r}; repeat them or delete "
                f"{path}"
            )


def read_checkpoint_settings(path: Path) -> dict[str, object]:
    """The settings of the run that a checkpoint belongs to."""
    settings = _read_header(path)["settings"]
    assert isinstance(settings, dict)
    return settings


def _tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _read_header(path: Path) -> dict[str, object]:
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get("session", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"a checkpoint must be intact, got {path} which is not ({error}); delete it"
        ) from None
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"a checkpoint must have schema {SCHEMA}, got {schema} in {path}; "
            "delete it and start again"
        )
    return dict(record)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write tensors and a header to a safetensors file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    save_file(cpu_copies(tensors), partial, header)
    commit_file(partial, path)


def cpu_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU: safetensors does not accept tensors that share memory."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
