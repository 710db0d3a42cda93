"""Verify a channel map: the cut network must equal the network with zeroed channels.

One forward pass does not show sizes fixed in the network's code (`x.view(-1, 9216)`,
`split(x, 58)`). Therefore a random mask is cut and run. If that fails, the channels of all
operations that depend on channel counts are protected. Then the operations are released one by
one, as long as the cut network stays correct.
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

TOLERANCE = 1e-4  # relative to the largest output
MAX_SITES_RETRIED = 24


def verify_channel_map(
    model: nn.Module, trace: TraceResult, input_shape: tuple[int, ...]
) -> ChannelMap:
    """Return the channel map, with channels protected whose removal breaks the network.

    Raises:
        UserError: If the cut network is wrong even with all suspects protected.
    """
    build = partial(build_channel_map, model, trace, input_shape)
    whole, model = build(), randomized_copy(model, input_shape, seed=0)
    if find_slicing_failure(model, whole) is None:
        return whole
    needed = list(range(len(trace.couplings.fragile)))
    failure = find_slicing_failure(model, build(needed))
    if failure is not None:
        raise UserError(
            f"the cut network must equal the masked network, but {failure}; "
            "protect the layers around this operation with keep=[...]"
        )
    for site in needed[:MAX_SITES_RETRIED]:  # release sites that are harmless
        fewer = [other for other in needed if other != site]
        if find_slicing_failure(model, build(fewer)) is None:
            needed = fewer
    return build(needed)


def find_slicing_failure(model: nn.Module, channel_map: ChannelMap) -> str | None:
    """Return why the network cut to a random mask is wrong; None if it is correct."""
    keep = random_mask(channel_map, 0.6, np.random.default_rng(0))
    trial = copy.deepcopy(model)
    _zero_inputs(trial, channel_map, keep)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, *channel_map.input_shape, generator=generator)
    with torch.no_grad():
        expected = _flatten_outputs(trial(sample))
        slice_layers(trial, channel_map, keep)
        try:
            found = _flatten_outputs(trial(sample))
        except Exception as error:
            return f"it fails ({(str(error).splitlines() or [''])[0][:160]})"
    if expected.shape != found.shape:
        return f"its output has {found.numel()} values instead of {expected.numel()}"
    difference = relative_error(found, expected)
    if difference <= TOLERANCE:
        return None
    return f"its output differs by {difference:.1e} of the largest value"


def random_mask(channel_map: ChannelMap, keep_rate: float, rng: np.random.Generator) -> Mask:
    """Draw a mask [A] with probability `keep_rate`; no group keeps all or no atoms."""
    keep = rng.random(channel_map.atoms) < keep_rate
    draw = rng.random(channel_map.atoms)
    for group in range(len(channel_map.groups)):
        members = np.flatnonzero(channel_map.group_of == group)
        order = members[draw[members].argsort()]
        keep[order[0]], keep[order[-1]] = False, True
    return keep


def _zero_inputs(model: nn.Module, channel_map: ChannelMap, keep: Mask) -> None:
    """Zero the weights that read removed channels."""
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
