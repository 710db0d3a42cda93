"""Load data by name: `digits`, `cifar10:DIR`, `folder:DIR`, ... or `module:function`."""

from __future__ import annotations

from importlib import import_module

from ....spaces.errors import UserError
from ..splits import DataSplits
from .options import LoadOptions

# The word before the colon, and the module of this folder that reads it (imported on demand).
SOURCES = {
    "digits": "digits",
    "cifar10": "torchvision_files",
    "cifar100": "torchvision_files",
    "mnist": "torchvision_files",
    "fashion-mnist": "torchvision_files",
    "folder": "folder",
}


def load_data(
    name: str, *, seed: int = 0, download: bool = False, reading: LoadOptions | None = None
) -> DataSplits:
    """Load data by name.

    Args:
        name: `digits`, a source of SOURCES with its directory (`cifar10:DIR`), or
            `module:function` for a function that returns data in any accepted form.
        seed: The seed with which validation is split off from train.
        download: Download the data first; only for torchvision's data sets.
        reading: All options at once; replaces `seed` and `download`.

    Raises:
        UserError: if the name is unknown or the data cannot be read.

    Example:
        >>> data = load_data("digits", seed=0)
    """
    kind, _, where = name.partition(":")
    settings = reading or LoadOptions(seed=seed, download=download)
    if settings.download and SOURCES.get(kind) != "torchvision_files":
        known = ", ".join(f"{k}:DIR" for k, v in SOURCES.items() if v == "torchvision_files")
        raise UserError(f"--download is for {known}, got {name!r}; leave it out")
    if kind == "digits" and where:
        raise UserError(f"data 'digits' takes no directory, got {name!r}; write digits")
    if kind in SOURCES:
        module = import_module(f".{SOURCES[kind]}", __package__)
        if not where and kind != "digits":
            raise UserError(f"data {kind!r} needs its directory, got none; write {kind}:DIR")
        read = module.read
    elif where:
        read = import_module(".function", __package__).read
    else:
        known = ", ".join(k if k == "digits" else f"{k}:DIR" for k in SOURCES)
        raise UserError(
            f"data must be one of {known} or module:function, got {name!r}; pick one of these"
        )
    data = read(name, where, settings)
    assert isinstance(data, DataSplits)
    return data
