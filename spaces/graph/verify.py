"""Prove a channel map by cutting: the cut network must equal the one with zeroed channels.

Sizes written into a network's code (`x.view(-1, 9216)`, `split(x, 58)`) are not to be seen in one
forward pass. So a random mask is cut and run. If that fails, the channels of every operation that
depended on their number are protected, and then set free again one operation after the other, as
long as the cut network stays right.
"""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import Mask
from ..errors import UserError
from ..outputs import tensors_in
from .atoms import TraceResult, build_channel_map
from .channels import ChannelMap
from .modules.option_a_shortcut import OptionAShortcut
from .random_weights import randomized_copy, relative_error
from .slicing import kept_channels, slice_layers

TOLERANCE = 1e-4
MAX_SITES_RETRIED = 24


def verify_channel_map(
    model: nn.Module, trace: TraceResult, input_shape: tuple[int, ...]
) -> ChannelMap:
    """The channel map, with everything protected that a cut network does not survive."""
    build = partial(build_channel_map, model, trace, input_shape)
    whole, model = build(), randomized_copy(model, input_shape, seed=0)
    if find_slicing_failure(model, whole) is None:
        return whole
    needed = list(range(len(trace.couplings.fragile)))
    failure = find_slicing_failure(model, build(needed))
    if failure is not None:
        raise UserError(
            f"a cut network must compute what the masked one does, but here {failure}; "
            "keep the layers around that place with keep=[...]"
        )
    for site in needed[:MAX_SITES_RETRIED]:  # set free, one by one, what turns out harmless
        fewer = [other for other in needed if other != site]
        if find_slicing_failure(model, build(fewer)) is None:
            needed = fewer
    return build(needed)


def find_slicing_failure(model: nn.Module, channel_map: ChannelMap) -> str | None:
    """Why the network cut to a random mask is wrong; None if it is right."""
    keep = random_mask(channel_map, 0.6, np.random.default_rng(0))
    tried = copy.deepcopy(model)
    _zero_inputs(tried, channel_map, keep)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, *channel_map.input_shape, generator=generator)
    with torch.no_grad():
        expected = _flatten_outputs(tried(sample))
        slice_layers(tried, channel_map, keep)  # what it was deaf to goes
        try:
            found = _flatten_outputs(tried(sample))
        except Exception as problem:
            return f"it stops ({(str(problem).splitlines() or [''])[0][:160]})"
    if expected.shape != found.shape:
        return f"its output has {found.numel()} numbers instead of {expected.numel()}"
    error = relative_error(found, expected)
    return None if error <= TOLERANCE else f"its output differs by {error:.1e} of the largest"


def random_mask(channel_map: ChannelMap, keep_rate: float, rng: np.random.Generator) -> Mask:
    """Keep each atom with a probability, but neither all nor none of a group: bool [A]."""
    keep = rng.random(channel_map.atoms) < keep_rate
    draw = rng.random(channel_map.atoms)
    for group in range(len(channel_map.groups)):
        members = np.flatnonzero(channel_map.group_of == group)
        order = members[draw[members].argsort()]
        keep[order[0]], keep[order[-1]] = False, True
    return keep


def _zero_inputs(model: nn.Module, channel_map: ChannelMap, keep: Mask) -> None:
    """Make the layers deaf to removed channels, by their weights alone."""
    for layer in channel_map.layers:
        module, kept_in = model.get_submodule(layer.name), kept_channels(layer.in_atoms, keep)
        if isinstance(module, OptionAShortcut):
            silent = ~kept_in[module.index.clamp(min=0)]
            module.scale[silent] = 0
        elif layer.kind in ("conv", "linear") and layer.conv_groups == 1:
            transposed = getattr(module, "transposed", False)
            weight = module.weight
            assert isinstance(weight, Tensor)
            weight.data[(~kept_in,) if transposed else (slice(None), ~kept_in)] = 0


def _flatten_outputs(out: object) -> Tensor:
    return torch.cat([t.flatten().double() for t in tensors_in(out)])
