"""Memory management of a process that serves models."""

import contextlib
import ctypes
import gc

import pyarrow as pa


def settle() -> None:
    """Freeze what is loaded, and return the memory that loading took.

    Garbage collection then skips libraries and models; scanning them stops all threads for 0.1 s or more.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    release()


def release() -> None:
    """Collect garbage among what is not frozen, and return freed memory to the system, in some 20 ms.

    Arrow keeps freed memory, some 60 MiB after a CSV of 50,000 rows, and so does glibc, some 20 MiB after a
    forest; other C libraries lack this call.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
