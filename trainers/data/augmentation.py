"""Random pad-crop and flip of a whole batch, on the batch's own device.

`unfold` gives a view of every crop of the padded batch. One indexing operation with one offset per
sample then copies the drawn crops only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PAD_DIVISOR = 8  # CIFAR's usual 4 pixels of 32


def random_crop_flip(images: Tensor, *, generator: torch.Generator, flip: bool = True) -> Tensor:
    """Shift each image [B, C, H, W] by up to 1/8 of its side and mirror half of them if `flip`."""
    count, _, height, width = images.shape
    pad = max(1, height // PAD_DIVISOR)
    draws = torch.randint(0, 2 * pad + 1, (2, count), generator=generator).to(images.device)
    crops = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    rows = torch.arange(count, device=images.device)
    shifted = crops[rows, :, draws[0], draws[1]]
    if not flip:
        return shifted
    flips = torch.randint(0, 2, (count,), generator=generator).to(images.device, torch.bool)
    return torch.where(flips.view(-1, 1, 1, 1), shifted.flip(3), shifted)
