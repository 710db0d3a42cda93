"""Names of array types. A comment or docstring gives the shape: A atoms, B masks or policies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Int32Array = NDArray[np.int32]
Mask = BoolArray  # [A] or [B, A], True = kept
NamedArrays = dict[str, NDArray[np.generic]]
