"""Run a network from an operation in its middle, so that earlier operations run only once.

torch.fx traces the network to a list of operations. A `ForwardState` holds the values that are
still needed at a position of that list; `advance` moves it to a later position, `finish` to the
output. The result is exact: a network that cannot be traced, whose operations change their inputs
in place, or whose traced output differs is rejected.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

from ...spaces.graph.random_weights import relative_error
from ...spaces.outputs import tensors_in

PLAIN_NORMS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)  # subclasses may do more
TOLERANCE = 1e-4  # fused norms round differently
OUT_OF_PLACE_OPS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


class PartialForwardError(ValueError):
    """The network can only run from its start; the message gives the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class ForwardState:
    """The values that the operations from `position` on need."""

    position: int
    values: dict[fx.Node, Any]

    @property
    def nbytes(self) -> int:
        """The memory of all tensors in bytes."""
        tensors = [v for v in tree_leaves(list(self.values.values())) if isinstance(v, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class PartialForward:
    """The operations of a network in eval mode. `model` is modified: its norms may be fused."""

    def __init__(self, model: nn.Module, sample: Tensor, leaves: Iterable[str]) -> None:
        """`leaves` are modules that run as a single operation, as hooks on them require."""
        expected = model(sample)
        try:
            graph = _LeafTracer(frozenset(leaves)).trace(model)
            _disable_inplace(graph, model)
            _fuse_batch_norms(graph, model)
            self._runner = fx.Interpreter(model, graph=graph)
            self._nodes = list(graph.nodes)
            position = {node: index for index, node in enumerate(self._nodes)}
            self._last_use = {
                node: max((position[user] for user in node.users), default=-1) for node in position
            }
            self._verify(sample, expected)
        except PartialForwardError:
            raise
        except Exception as error:  # torch.fx and the network's own code may raise anything
            raise PartialForwardError(f"{type(error).__name__}: {error}") from error

    def position_of(self, modules: Iterable[str]) -> int:
        """The position of the first call of one of the modules."""
        names = set(modules)
        positions = (
            i for i, n in enumerate(self._nodes) if n.op == "call_module" and n.target in names
        )
        return next(positions, len(self._nodes) - 1)

    def start(self, images: Tensor) -> ForwardState:
        """The state before the first operation."""
        first = next(node for node in self._nodes if node.op == "placeholder")
        return ForwardState(0, {first: images})

    def advance(self, state: ForwardState, position: int) -> ForwardState:
        """The state at a later position."""
        env = self._runner.env = dict(state.values)
        for index in range(state.position, position):
            self._run(self._nodes[index])
            for used in self._nodes[index].all_input_nodes:
                if self._last_use[used] <= index:
                    env.pop(used, None)
        needed = {n: v for n, v in env.items() if self._last_use[n] >= position}
        return ForwardState(position, needed)

    def finish(self, state: ForwardState) -> Any:
        """The network's output."""
        last = self.advance(state, len(self._nodes) - 1)
        self._runner.env = last.values
        return self._runner.run_node(self._nodes[-1])

    def _run(self, node: fx.Node) -> None:
        if node not in self._runner.env:  # inputs are set before
            self._runner.env[node] = self._runner.run_node(node)

    def _verify(self, sample: Tensor, expected: Any) -> None:
        """Raise PartialForwardError if the output differs or an operation works in place."""
        inputs = [node for node in self._nodes if node.op == "placeholder"]
        self._runner.env = dict.fromkeys(inputs[1:]) | self.start(sample).values
        versions: list[tuple[Tensor, int]] = []
        for node in self._nodes:
            self._run(node)
            value = self._runner.env[node]
            versions += [(t, t._version) for t in tree_leaves(value) if isinstance(t, Tensor)]
        found = tensors_in(self._runner.env[self._nodes[-1]])
        if any(tensor._version != version for tensor, version in versions):
            raise PartialForwardError("an operation changes its input in place")
        pairs = zip(tensors_in(expected), found, strict=True)
        if any(relative_error(b, a) > TOLERANCE for a, b in pairs):
            raise PartialForwardError("the traced operations give another output than the network")


class _LeafTracer(fx.Tracer):
    """A tracer that treats the given modules as single operations."""

    def __init__(self, leaves: frozenset[str]) -> None:
        super().__init__()
        self._leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """True for the given modules and for those of torch."""
        return module_qualified_name in self._leaves or super().is_leaf_module(
            m, module_qualified_name
        )


def _disable_inplace(graph: fx.Graph, model: nn.Module) -> None:
    """Replace in-place operations, which would overwrite stored values."""
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    for node in graph.nodes:
        if node.kwargs.get("inplace") is True:
            node.update_kwarg("inplace", False)
        if node.op == "call_function":
            node.target = OUT_OF_PLACE_OPS.get(node.target, node.target)


def _fuse_batch_norms(graph: fx.Graph, model: nn.Module) -> None:
    """Fuse each norm with running statistics into the convolution that is its only input."""
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    modules = dict(model.named_modules())
    for node in list(graph.nodes):
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        norm, convolution = modules[node.target], modules[str(source.target)]
        once = calls.count(node.target) == calls.count(source.target) == len(source.users) == 1
        if not (once and isinstance(convolution, _ConvNd) and isinstance(norm, _BatchNorm)):
            continue
        if norm.running_mean is None or type(norm).forward not in PLAIN_NORMS:
            continue
        fused = fuse_conv_bn_eval(convolution, norm, convolution.transposed)
        model.set_submodule(str(source.target), fused)
        node.replace_all_uses_with(source)
        graph.erase_node(node)
