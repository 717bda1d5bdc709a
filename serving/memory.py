"""What a process that serves models does about its memory."""

import contextlib
import ctypes
import gc

import pyarrow as pa


def settle() -> None:
    """Let what is loaded now stay, and give back what it took to load it.

    Garbage collection looks through libraries and models no more, which stops all threads for 0.1 s or more.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    release()


def release() -> None:
    """Give freed memory back to the system, in some 10 ms.

    Arrow keeps what was freed for later, some 60 MiB after a CSV of 50,000 rows, and so does glibc, some
    20 MiB after a forest; other C libraries know no such call.
    """
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
