"""Signals: how a training takes Ctrl-C and what systemd and Docker send; ignored outside the main thread."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

type Handler = Callable[[int, FrameType | None], object] | int


def sigterm_as_interrupt() -> contextlib.AbstractContextManager[None]:
    """Let ``docker stop`` and ``systemctl stop`` end a training as Ctrl-C does."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    return _handled({signal.SIGTERM: interrupt})


def signals_ignored() -> contextlib.AbstractContextManager[None]:
    """Let nothing short of SIGKILL end what is in the block."""
    return _handled({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN})


@contextlib.contextmanager
def _handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
