"""The door to data: `load_data` by name, `user_data` from objects, and the records both return."""

from __future__ import annotations

from importlib import import_module

from ....spaces.errors import UserError
from ..splits import DataSplits
from .options import LoadOptions

# The word before the colon, and the module of this folder that reads it (imported when asked for).
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
    """Data by name: `digits`, `cifar10:DIR`, `folder:DIR`, ..., or `module:function`."""
    kind, _, where = name.partition(":")
    settings = reading or LoadOptions(seed=seed, download=download)
    if settings.download and SOURCES.get(kind) != "torchvision_files":
        known = ", ".join(f"{k}:DIR" for k, v in SOURCES.items() if v == "torchvision_files")
        raise UserError(f"--download is for {known}, got {name!r}; leave it out")
    if kind == "digits" and where:
        raise UserError(f"data 'digits' has no directory, got {name!r}; write digits")
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
