"""Memory management of a process that serves models, with the standard library alone."""

import contextlib
import ctypes
import gc


def settle() -> None:
    """Freeze what is loaded, and return the memory that loading took.

    Garbage collection then skips libraries and models; scanning them stops all threads for 0.1 s or more.
    glibc keeps freed memory, some 20 MiB after a forest; other C libraries lack this call.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
