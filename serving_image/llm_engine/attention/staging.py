"""Numbers of a step on their way to the device: one copy, and nobody waits for it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNED_ITEMS: Final = 4
"""int32 items in 16 bytes: a kernel is compiled once for pointers so aligned, not once for each."""


def to_device(arrays: Sequence[NDArray[np.int32]], device: torch.device) -> list[Tensor]:
    """Return int32 arrays as tensors on the device, all copied at once.

    The copy to a GPU is asynchronous: from pinned memory, in the order of the current stream.
    """
    sizes = [array.size for array in arrays]
    padded = [-(-size // ALIGNED_ITEMS) * ALIGNED_ITEMS for size in sizes]
    staged = torch.empty(sum(padded), dtype=torch.int32, pin_memory=device.type == "cuda")
    whole = staged.numpy()
    first = 0
    for array, size, room in zip(arrays, sizes, padded, strict=True):
        whole[first : first + size] = array.reshape(-1)
        first += room
    pieces = torch.split(staged.to(device, non_blocking=True), padded)
    return [
        piece[:size].view(array.shape)
        for piece, size, array in zip(pieces, sizes, arrays, strict=True)
    ]
