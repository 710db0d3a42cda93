"""The door to data: `load_data` by name, `user_data` from objects, and the records both return."""

from __future__ import annotations

from importlib import import_module

from ..spaces.errors import UserError
from .datasets.reading import Reading
from .datasets.user import user_data
from .split import Data, Source, Split, prepare

__all__ = ["SOURCES", "Data", "Reading", "Source", "Split", "load_data", "prepare", "user_data"]

# The word before the colon, and the module of `datasets` that reads it (imported when asked for).
SOURCES = {
    "digits": "digits",
    "cifar10": "torch_files",
    "cifar100": "torch_files",
    "mnist": "torch_files",
    "fashion-mnist": "torch_files",
    "folder": "folder",
}


def load_data(
    name: str, *, seed: int = 0, download: bool = False, reading: Reading | None = None
) -> Data:
    """Data by name: `digits`, `cifar10:DIR`, `folder:DIR`, ..., or `module:function`."""
    kind, _, where = name.partition(":")
    settings = reading or Reading(seed=seed, download=download)
    if settings.download and SOURCES.get(kind) != "torch_files":
        known = ", ".join(f"{k}:DIR" for k, v in SOURCES.items() if v == "torch_files")
        raise UserError(f"--download is for {known}, got {name!r}; leave it out")
    if kind == "digits" and where:
        raise UserError(f"data 'digits' has no directory, got {name!r}; write digits")
    if kind in SOURCES:
        module = import_module(f".datasets.{SOURCES[kind]}", __package__)
        if not where and kind != "digits":
            raise UserError(f"data {kind!r} needs its directory, got none; write {kind}:DIR")
        read = module.read
    elif where:
        read = import_module(".datasets.function", __package__).read
    else:
        known = ", ".join(k if k == "digits" else f"{k}:DIR" for k in SOURCES)
        raise UserError(
            f"data must be one of {known} or module:function, got {name!r}; pick one of these"
        )
    data = read(name, where, settings)
    assert isinstance(data, Data)
    return data
