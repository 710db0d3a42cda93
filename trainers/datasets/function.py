"""`module:function`: a function of the user's own that returns data in any accepted form."""

from __future__ import annotations

from dataclasses import replace

from ..factory import call_with_known, load_object
from ..split import Data
from .reading import Reading
from .user import user_data


def read(name: str, where: str, reading: Reading) -> Data:
    """Call the user's function; it may take `seed`."""
    function = load_object(name, what="data")
    given = call_with_known(function, {"seed": reading.seed})
    return replace(user_data(given, seed=reading.seed), name=name)
