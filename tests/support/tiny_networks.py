"""Tiny networks of every kind that scores meet, with noise to look at, and what tests ask them."""

import numpy as np
import torch
from oracles import trace
from torch import nn
from torch.nn import functional

from paretoprune.analysis.scores import all_scores
from paretoprune.analysis.scores.measure import measure_scores
from paretoprune.analysis.scores.registry import BatchScore, Network
from paretoprune.trainers.data.splits import DataSplits, Split

OF_DATA = [name for name, method in all_scores().items() if isinstance(method, BatchScore)]
OF_WEIGHTS = [name for name in all_scores() if name not in OF_DATA and name != "random"]
SHAPE = (2, 6, 6)
IMAGES = 150  # one whole batch and a short one


def data_of(images, labels):
    split = Split(images, labels)
    return DataSplits("noise", split, split, None, 3, (0.0,), (1.0,), tuple(images.shape[1:]))


def network_of(model, shape=SHAPE, images=IMAGES):
    traced = trace(model, shape)
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(images, *shape, generator=rng)
    data = data_of(x, torch.randint(0, 3, (images,), generator=rng))
    rng = np.random.default_rng(0)
    return Network(traced.model.eval(), traced.channel_map, data, data.train, rng)


def plain():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


class NormAct(nn.BatchNorm2d):
    """A batch norm with an activation in a forward of its own, as timm's."""

    def __init__(self, channels, act=None, **options):
        super().__init__(channels, **options)
        self.act = act or nn.ReLU(inplace=True)

    def forward(self, x):
        training = self.training or self.running_mean is None
        stored = self.track_running_stats or not self.training
        mean, var = (self.running_mean, self.running_var) if stored else (None, None)
        step = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            step = step if step is not None else 1 / float(self.num_batches_tracked)
        x = functional.batch_norm(
            x, mean, var, self.weight, self.bias, training, step or 0.0, self.eps
        )
        return self.act(x)


def normed():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), NormAct(4), nn.Conv2d(4, 5, 3),
        NormAct(5, act=nn.PReLU(5)), nn.Flatten(), nn.Linear(80, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


class Residual(nn.Module):
    """A stream that two layers produce and two read; PReLU and no norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.end = nn.PReLU(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.act(self.stem(x))
        return self.end((x + self.block(x)).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.end = nn.Linear(6, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

    def forward(self, x):
        x = self.embed(x.flatten(1, 2))
        return self.end((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


class Twice(nn.Module):
    """One layer called two times."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.end = nn.Linear(4, 3)

    def forward(self, x):
        x = self.shared(functional.relu(self.shared(self.stem(x).relu())))
        return self.end(x.relu().mean((2, 3)))


def grouped():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2), nn.ReLU(),
        nn.Conv2d(6, 6, 1, groups=6), nn.Flatten(), nn.Linear(6 * 16, 3),
    )  # fmt: skip


NETWORKS = {"plain": plain, "residual": Residual, "attention": Attention, "twice": Twice}
NETWORKS |= {"grouped": grouped, "normed": normed}


def run_all(network, names=None):
    methods = {n: m for n, m in all_scores().items() if names is None or n in names}
    return measure_scores(network, methods, seed=0)


def part(parts, layer, atom):
    (value,) = parts.value[(parts.layer == layer) & (parts.atom == atom)]
    return value


def owned_filters(network):
    """(layer index, module, {atom: its channels}) of every layer with weights."""
    for index, layer in enumerate(network.channel_map.layers):
        if layer.kind in ("conv", "linear"):
            atoms = np.unique(layer.out_atoms[layer.out_atoms >= 0])
            channels = {int(a): np.flatnonzero(layer.out_atoms == a).tolist() for a in atoms}
            yield index, network.model.get_submodule(layer.name), channels


def filter_of(module, tensor, channel):
    """The entries of a weight (or its gradient) that make one output channel, flat."""
    if not isinstance(module, nn.ConvTranspose2d):
        return tensor[channel].flatten()
    width, inputs = module.out_channels // module.groups, module.in_channels // module.groups
    group = channel // width
    return tensor[group * inputs : (group + 1) * inputs, channel % width].flatten()
