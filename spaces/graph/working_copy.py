"""The working copy of a user's network; the user's network itself is never modified."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from ..errors import UserError
from .modules.attention import ExplicitMultiheadAttention
from .modules.swin_attention import ExplicitWindowAttention

SWIN_MODULE = "torchvision.models.swin_transformer"
ATTENTION_REPLACEMENTS: dict[tuple[str, str], Callable[[Any], nn.Module]] = {
    ("torch.nn.modules.activation", "MultiheadAttention"): ExplicitMultiheadAttention,
    (SWIN_MODULE, "ShiftedWindowAttention"): ExplicitWindowAttention,
    (SWIN_MODULE, "ShiftedWindowAttentionV2"): ExplicitWindowAttention,
}
AUXILIARY_HEADS = {  # heads used only in training, by class
    ("torchvision.models.googlenet", "GoogLeNet"): ("aux1", "aux2"),
    ("torchvision.models.inception", "Inception3"): ("AuxLogits",),
}


class UnusableModelError(UserError):
    """A model that cannot be copied; the message states the remedy."""


def make_working_copy(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a copy in float32 on the CPU in eval mode, and notes on what differs.

    In eval mode its outputs equal those of the original. The function is idempotent.

    Raises:
        UnusableModelError: If the model cannot be copied.
    """
    notes: list[str] = []
    copied = _copy_model(_unwrap(model, notes))
    _note_casts(copied, notes)
    copied = copied.cpu().float().eval()
    for parameter in copied.parameters():
        parameter.grad = None
    _drop_auxiliary_heads(copied, notes)
    return _replace_attention(copied, notes), tuple(notes)


def _unwrap(model: nn.Module, notes: list[str]) -> nn.Module:
    """Return the network without wrappers such as DataParallel or torch.compile.

    Raises:
        UnusableModelError: If the network cannot be copied.
    """
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            inner: Any = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            inner = model._orig_mod
        else:
            break
        notes.append(f"{type(model).__name__} wrapper removed")
        model = inner
    if not isinstance(model, nn.Module):
        raise UnusableModelError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; "
            "call the function that builds it"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise UnusableModelError("model must be eager, got TorchScript; pass the original module")
    if any(is_lazy(p) for p in model.parameters()):
        raise UnusableModelError(
            "model must have its weights, got lazy layers; run it once on an input"
        )
    if any(p.is_meta for p in model.parameters()):
        raise UnusableModelError(
            "model must have its weights, got meta tensors; load its state dict first"
        )
    return model


def _copy_model(model: nn.Module) -> nn.Module:
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnusableModelError(
            f"model must work with copy.deepcopy, got {first[:160]}; build the network again "
            "and load its state dict"
        ) from error
    for module in list(copied.modules()):
        module._compiled_call_impl = None  # set by model.compile()
        for name, child in module.named_children():
            if hasattr(child, "_orig_mod"):  # compiled by torch.compile
                setattr(module, name, child._orig_mod)
    return copied


def _note_casts(model: nn.Module, notes: list[str]) -> None:
    kinds = {(p.dtype, p.device.type) for p in model.parameters()} - {(torch.float32, "cpu")}
    for dtype, device in sorted(kinds, key=str):
        notes.append(f"{str(dtype).removeprefix('torch.')} on {device} became float32 on the CPU")


def _class_key(module: nn.Module) -> tuple[str, str]:
    return type(module).__module__, type(module).__qualname__


def _drop_auxiliary_heads(model: nn.Module, notes: list[str]) -> None:
    for name, module in model.named_modules():
        heads = [
            h
            for h in AUXILIARY_HEADS.get(_class_key(module), ())
            if getattr(module, h) is not None
        ]
        for head in heads:
            setattr(module, head, None)
            notes.append(f"auxiliary head {f'{name}.{head}'.lstrip('.')} removed")
        if heads:
            module.aux_logits = False


def _replace_attention(model: nn.Module, notes: list[str]) -> nn.Module:
    """Replace attention modules by modules with explicit heads and projections."""
    done: dict[int, nn.Module] = {}  # a module used twice stays one module
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            build = ATTENTION_REPLACEMENTS.get(_class_key(child))
            if build is None:
                continue
            if id(child) not in done:
                try:
                    done[id(child)] = build(child).train(child.training)
                except NotImplementedError as error:
                    notes.append(f"{name} is not pruned ({error} not supported)")
                    continue
            setattr(parent, name, done[id(child)])
    if _class_key(model) in ATTENTION_REPLACEMENTS:
        return ATTENTION_REPLACEMENTS[_class_key(model)](model).eval()
    return model
