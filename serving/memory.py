"""What a process that serves models does about its memory. The standard library only: the app uses it too."""

import contextlib
import ctypes
import gc


def settle() -> None:
    """Let what is loaded now stay, and give back what it took to load it.

    Garbage collection looks through libraries and models no more, which stops all threads for 0.1 s or more.
    glibc keeps what was freed for later, some 20 MiB after a forest; other C libraries know no such call.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
