"""Read a network's channel map from one forward pass.

Every aten operation of the pass carries labels from its inputs to its outputs (rules.py), every
module with weights reads and renews them (leaves.py); what was tied on the way becomes the atoms
(atoms.py). Cutting the network once then proves what an operation's sizes might have fixed.
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
from .atoms import Trace, keep_layers, tie_shortcuts
from .calls import Call, Labels
from .channels import ChannelMap, Unread
from .labels import Couplings
from .rules.layers import Slot, is_opaque, leaf_kind, record_call, runs_its_norm, why_unread
from .rules.operations import carry
from .rules.raw_matmuls import product_macs
from .verify import verified


class Untraceable(UserError):
    """A network whose channels cannot be read; the message says what to do."""


def trace_channels(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    keep: Sequence[str] = (),
    tie_twins: bool = False,
) -> ChannelMap:
    """The channel map of a working copy at one input shape, without the batch.

    `keep` names layers or blocks (with * and ?) whose outputs are never removed. `tie_twins`: a
    channel and its copy behind an option-A shortcut go together, as in Li et al. 2020.
    """
    trace = run_traced(model, torch.zeros(1, *input_shape))
    keep_layers(trace, keep)
    if tie_twins:
        tie_shortcuts(trace)
    return verified(model, trace, tuple(input_shape))


def run_traced(model: nn.Module, sample: Tensor) -> Trace:
    """Run the network once and write down what its channels do."""
    training, recorder = model.training, _Recorder(model)
    try:
        with recorder.hooked(model.eval()), torch.no_grad(), recorder:
            out = model(sample)
    except Exception as error:
        raise Untraceable(_one_line(recorder, sample, error)) from error
    finally:
        model.train(training)
    for slot in recorder.slots.values():
        if recorder.raw & {_storage(p) for p in slot.module.parameters()}:
            for ids in (slot.ids_in, slot.ids_out):
                recorder.known.protect(
                    ids, f"the code also uses the weights of {slot.name} itself"
                )
    outputs = tensors_in(out)
    if not outputs:
        raise Untraceable(
            f"the network must return tensors, got {type(out).__name__} without one; return its "
            "outputs as a tensor, tuple, list, dict or dataclass"
        )
    for tensor in outputs:
        recorder.known.protect(recorder.labels.get(tensor), "output of the network")
    return Trace(recorder.slots, recorder.known, recorder.unread())


def _one_line(recorder: _Recorder, sample: Tensor, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"the network must run on one input of shape {tuple(sample.shape[1:])}, but "
        f"{recorder.place} failed ({first[:160]}); give the shape it expects, or wrap it "
        "to take one tensor"
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation outside leaves, and every call of a leaf."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labels = Labels()
        self.known = Couplings()
        self.slots: dict[str, Slot] = {}
        self.modules: list[str] = []  # the names of the modules now running
        self.named = dict(model.named_modules())
        self.inside = 0  # > 0: in a leaf
        self.macs: dict[str, int] = {}  # of weights outside of leaves, by module
        self.weights = {_storage(p) for p in model.parameters()}
        self.raw: set[int] = set()  # weights that the code uses by themselves

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.inside:
            place = f"{func.overloadpacket.__name__} in {self.place}"
            call = Call(func, args, kwargs, out, self.labels, self.known, place)
            if runs_its_norm(call, self.named[self.running]):
                self._record(self.running, "channelwise", (args[:1], {}), out)
                return out
            carry(call)
            self.raw |= self.weights & {_storage(t) for t in args if isinstance(t, Tensor)}
            macs = product_macs(func, args, kwargs, out, self.weights)
            if macs:
                self.macs[self.running] = self.macs.get(self.running, 0) + macs
        return out

    @property
    def running(self) -> str:
        """The name of the innermost module now running, empty for the network itself."""
        return self.modules[-1] if self.modules else ""

    @property
    def place(self) -> str:
        """The same for messages: the network itself goes by its class."""
        return self.running or type(self.named[""]).__name__

    def unread(self) -> tuple[Unread, ...]:
        """The modules that multiply by weights outside of leaves."""
        return tuple(
            Unread(name or type(self.named[""]).__name__, macs, why_unread(self.named[name]))
            for name, macs in self.macs.items()
        )

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Follow the modules of a network while it runs."""
        handles = []
        try:
            for name, module in model.named_modules():
                handles += self._follow(name, module)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _follow(self, name: str, module: nn.Module) -> list[Any]:
        kind = leaf_kind(module)

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.modules.append(name)
            self.inside += kind is not None

        def leave(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self.modules.pop()
            if kind is None:
                if is_opaque(module) and not self.inside:
                    self.macs.setdefault(name, 0)
                return
            self.inside -= 1
            if not self.inside:
                self._record(name, kind, (args, kwargs), out)

        return [
            module.register_forward_pre_hook(enter, prepend=False, with_kwargs=True),
            module.register_forward_hook(leave, prepend=True, with_kwargs=True),
        ]

    def _record(self, name: str, kind: Any, args: Any, out: Any) -> None:
        module = self.named[name]
        slot = self.slots.setdefault(name, Slot(name, kind, module, len(self.slots)))
        inputs = [t for t in tree_leaves(args) if isinstance(t, Tensor)]
        inputs = inputs[: getattr(module, "streams", 1)]
        first = out[0] if isinstance(out, tuple) else out
        self.inside += 1  # what follows is our own arithmetic
        record_call(slot, inputs, first, self.labels, self.known)
        self.inside -= 1
