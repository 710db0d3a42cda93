"""`module:function`: a user's function that returns data in any accepted form."""

from __future__ import annotations

from dataclasses import replace

from ...runtime.user_code import call_user_function
from ..splits import DataSplits
from .options import LoadOptions
from .user import convert_user_data


def read(name: str, where: str, reading: LoadOptions) -> DataSplits:
    """Call the user's function, which may take `seed`, and convert what it returns."""
    data = call_user_function(name, "data", {"seed": reading.seed})
    return replace(convert_user_data(data, seed=reading.seed), name=name)
