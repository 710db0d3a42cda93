"""The copy of a user's network that everything works on; the user's own is never touched."""

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
AUXILIARY_HEADS = {  # heads that only training uses, by class
    ("torchvision.models.googlenet", "GoogLeNet"): ("aux1", "aux2"),
    ("torchvision.models.inception", "Inception3"): ("AuxLogits",),
}


class UnusableModelError(UserError):
    """A model that no working copy can be made of; the message says what to do."""


def make_working_copy(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy in float32 on the CPU, eval mode, and notes on what is not as in the original.

    Its outputs equal the original's in eval mode. A working copy's copy is the same again.
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
    """The plain network within its wrappers, if it can be copied at all."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            inner: Any = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            inner = model._orig_mod
        else:
            break
        notes.append(f"taken out of its {type(model).__name__}")
        model = inner
    if not isinstance(model, nn.Module):
        raise UnusableModelError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; "
            "call the function that builds it"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise UnusableModelError(
            "model must be eager, got TorchScript; pass the module it was made from"
        )
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
            f"model must survive copy.deepcopy, got {first[:160]}; pass a freshly built network "
            "and load its state dict"
        ) from error
    for module in list(copied.modules()):
        module._compiled_call_impl = None  # model.compile() in place
        for name, child in module.named_children():
            if hasattr(child, "_orig_mod"):  # torch.compile of a part
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
    """Put attention with explicit heads in the place of what hides its projections."""
    done: dict[int, nn.Module] = {}  # an attention used twice stays one module
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            build = ATTENTION_REPLACEMENTS.get(_class_key(child))
            if build is None:
                continue
            if id(child) not in done:
                try:
                    done[id(child)] = build(child).train(child.training)
                except NotImplementedError as error:
                    notes.append(f"{name} stays dense ({error} not supported)")
                    continue
            setattr(parent, name, done[id(child)])
    if _class_key(model) in ATTENTION_REPLACEMENTS:
        return ATTENTION_REPLACEMENTS[_class_key(model)](model).eval()
    return model
