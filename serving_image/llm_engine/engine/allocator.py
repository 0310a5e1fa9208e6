"""How the C library keeps memory that was freed: what loading needed must not stay ours."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# From malloc.h of glibc.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

LOADING_BYTES: Final = 256 << 10
"""While loading, anything larger gets pages of its own, which freeing returns. On the shared heap
the weights would lie between the holes of what was converted: 370 MB of them for fp8 SmolLM2."""
SERVING_BYTES: Final = 32 << 20
"""While serving, a step's tensors come from the heap, whose pages are there already."""


@contextmanager
def returned_when_freed() -> Iterator[None]:
    """Have freed memory returned to the kernel at once; afterwards keep what steps use again."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):  # only glibc has both
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, LOADING_BYTES)
    try:
        yield
    finally:
        libc.malloc_trim(0)
        libc.mallopt(_M_MMAP_THRESHOLD, SERVING_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * SERVING_BYTES)
