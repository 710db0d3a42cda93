"""Trace a network's channel map in one forward pass.

Each aten operation propagates labels from its inputs to its outputs (rules/operations.py), and
each layer reads labels and creates new ones (rules/layers.py). Tied labels become atoms
(atoms.py). Cutting the network once verifies the map (verify.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import UserError
from ..outputs import tensors_in
from .atoms import TraceResult, protect_layers
from .calls import ActivationLabels, OperationCall
from .channels import ChannelMap, Unread
from .labels import Couplings
from .rules.layers import (
    TracedLayer,
    is_opaque,
    layer_kind,
    record_layer_call,
    runs_its_norm,
    why_unread,
)
from .rules.operations import propagate_labels
from .rules.raw_matmuls import raw_weight_macs
from .verify import verify_channel_map


class UntraceableModelError(UserError):
    """A network that cannot be traced; the message states the remedy."""


def trace_channel_map(
    model: nn.Module, input_shape: tuple[int, ...], *, keep: Sequence[str] = ()
) -> ChannelMap:
    """Return the channel map of a working copy.

    Args:
        model: The working copy, see `make_working_copy`.
        input_shape: The shape of one sample, without the batch dimension.
        keep: Names of layers or blocks (with * and ?) whose outputs are never removed.

    Raises:
        UntraceableModelError: If the network does not run on one zero input of this shape.
    """
    trace = trace_forward(model, torch.zeros(1, *input_shape))
    protect_layers(trace, keep)
    return verify_channel_map(model, trace, tuple(input_shape))


def trace_forward(model: nn.Module, sample: Tensor) -> TraceResult:
    """Run the network once in eval mode and record its layers and couplings.

    Raises:
        UntraceableModelError: If the forward pass fails or returns no tensor.
    """
    training, recorder = model.training, _TraceMode(model)
    try:
        with recorder.follow_modules(model.eval()), torch.no_grad(), recorder:
            out = model(sample)
    except Exception as error:
        raise UntraceableModelError(_failure_message(recorder, sample, error)) from error
    finally:
        model.train(training)
    for traced in recorder.traced_layers.values():
        if recorder.raw & {_storage_pointer(p) for p in traced.module.parameters()}:
            for ids in (traced.ids_in, traced.ids_out):
                recorder.couplings.protect(
                    ids, f"the code also uses the weights of {traced.name} itself"
                )
    outputs = tensors_in(out)
    if not outputs:
        raise UntraceableModelError(
            f"the network must return tensors, got {type(out).__name__} without one; return its "
            "outputs as a tensor, tuple, list, dict or dataclass"
        )
    for tensor in outputs:
        recorder.couplings.protect(recorder.labels.get(tensor), "output of the network")
    return TraceResult(recorder.traced_layers, recorder.couplings, recorder.unread())


def _failure_message(recorder: _TraceMode, sample: Tensor, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"the network must run on one input of shape {tuple(sample.shape[1:])}, but "
        f"{recorder.place} failed ({first[:160]}); give the shape it expects, or wrap it "
        "to take one tensor"
    )


def _storage_pointer(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _TraceMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record every operation outside of layers, and every call of a layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labels = ActivationLabels()
        self.couplings = Couplings()
        self.traced_layers: dict[str, TracedLayer] = {}
        self.modules: list[str] = []  # names of the running modules, innermost last
        self.named = dict(model.named_modules())
        self.layer_depth = 0  # > 0: inside a layer, or in our own code
        self.macs: dict[str, int] = {}  # of weights outside of layers, by module
        self.weights = {_storage_pointer(p) for p in model.parameters()}
        self.raw: set[int] = set()  # weights used directly by the network's code

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.layer_depth:
            place = f"{func.overloadpacket.__name__} in {self.place}"
            call = OperationCall(func, args, kwargs, out, self.labels, self.couplings, place)
            if runs_its_norm(call, self.named[self.running]):
                self._record(self.running, "channelwise", (args[:1], {}), out)
                return out
            propagate_labels(call)
            self.raw |= self.weights & {_storage_pointer(t) for t in args if isinstance(t, Tensor)}
            macs = raw_weight_macs(func, args, kwargs, out, self.weights)
            if macs:
                self.macs[self.running] = self.macs.get(self.running, 0) + macs
        return out

    @property
    def running(self) -> str:
        """The name of the innermost running module; empty for the network itself."""
        return self.modules[-1] if self.modules else ""

    @property
    def place(self) -> str:
        """The same for messages, with the class name for the network itself."""
        return self.running or type(self.named[""]).__name__

    def unread(self) -> tuple[Unread, ...]:
        """Return the modules that multiply by weights outside of layers."""
        return tuple(
            Unread(name or type(self.named[""]).__name__, macs, why_unread(self.named[name]))
            for name, macs in self.macs.items()
        )

    @contextmanager
    def follow_modules(self, model: nn.Module) -> Iterator[None]:
        """Track the running module by hooks inside this context."""
        handles = []
        try:
            for name, module in model.named_modules():
                handles += self._follow(name, module)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _follow(self, name: str, module: nn.Module) -> list[Any]:
        kind = layer_kind(module)

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.modules.append(name)
            self.layer_depth += kind is not None

        def leave(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self.modules.pop()
            if kind is None:
                if is_opaque(module) and not self.layer_depth:
                    self.macs.setdefault(name, 0)
                return
            self.layer_depth -= 1
            if not self.layer_depth:
                self._record(name, kind, (args, kwargs), out)

        return [
            module.register_forward_pre_hook(enter, prepend=False, with_kwargs=True),
            module.register_forward_hook(leave, prepend=True, with_kwargs=True),
        ]

    def _record(self, name: str, kind: Any, args: Any, out: Any) -> None:
        module = self.named[name]
        traced = self.traced_layers.setdefault(
            name, TracedLayer(name, kind, module, len(self.traced_layers))
        )
        inputs = [t for t in tree_leaves(args) if isinstance(t, Tensor)]
        inputs = inputs[: getattr(module, "streams", 1)]
        first = out[0] if isinstance(out, tuple) else out
        self.layer_depth += 1  # do not trace our own operations
        record_layer_call(traced, inputs, first, self.labels, self.couplings)
        self.layer_depth -= 1
