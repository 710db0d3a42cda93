"""`module:function`: a function of the user's own that returns data in any accepted form."""

from __future__ import annotations

from dataclasses import replace

from ...runtime.user_code import call_user_function
from ..splits import DataSplits
from .options import LoadOptions
from .user import convert_user_data


def read(name: str, where: str, reading: LoadOptions) -> DataSplits:
    """Call the user's function; it may take `seed`."""
    given = call_user_function(name, "data", {"seed": reading.seed})
    return replace(convert_user_data(given, seed=reading.seed), name=name)
