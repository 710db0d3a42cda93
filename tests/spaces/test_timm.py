"""Both oracles, masked = cut and cost = counted, on timm networks."""

from __future__ import annotations

import pytest
from oracles import assert_oracles, trace

timm = pytest.importorskip("timm")
FAMILIES = [
    ("mobilenetv3_small_050", 64, 0.95, {}),  # norms with an activation, squeeze and excitation
    ("vit_tiny_patch16_224", 64, 0.55, {"img_size": 64, "depth": 2}),  # attention
    ("regnetx_002", 64, 0.95, {}),
    ("densenet121", 64, 0.95, {}),
    ("swin_tiny_patch4_window7_224", 56, 0.6, {"img_size": 56}),
    ("mobilevit_xxs", 64, 0.7, {}),
    ("cspdarknet53", 64, 0.95, {}),
    ("inception_v4", 96, 0.95, {}),
]
FAST = {"mobilenetv3_small_050", "vit_tiny_patch16_224"}


@pytest.mark.parametrize(
    ("name", "size", "floor", "options"),
    [pytest.param(*row, marks=[] if row[0] in FAST else pytest.mark.slow) for row in FAMILIES],
)
def test_masked_and_cut_timm_networks_agree_and_costs_are_exact(
    name: str, size: int, floor: float, options: dict[str, object]
) -> None:
    traced = trace(timm.create_model(name, num_classes=10, **options), (3, size, size))
    assert traced.removable >= floor
    assert_oracles(traced, rates=(0.6,))
