"""`module:function`: a function of the user's own that returns data in any accepted form."""

from __future__ import annotations

from dataclasses import replace

from ...runtime.user_code import call_with_known
from ..types import Data
from .options import Reading
from .user import user_data


def read(name: str, where: str, reading: Reading) -> Data:
    """Call the user's function; it may take `seed`."""
    given = call_with_known(name, "data", {"seed": reading.seed})
    return replace(user_data(given, seed=reading.seed), name=name)
