"""Signals that ask a run to stop: taken at once, or in training when it stands where it can go on from."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bunryu.system import ranks

log = logging.getLogger(__name__)

ECHO = 1.0  # seconds; a supervisor may tell each of several processes, and the one that passes it on to them

# Slurm warns by SIGUSR1 or SIGUSR2 before it ends a job, a container's host by SIGTERM.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class Interrupted(BaseException):
    """A signal asked to stop; no Exception, so that nothing on the way takes it for a failure.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 130 if number == signal.SIGINT else 143


class Pruned(Interrupted):
    """A study stopped a trial that fell behind the others; its run can be resumed like any other.

    Args:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        BaseException.__init__(self, reason)
        self.exit_code = 0


class StopRequest:
    """Whether somebody asked to stop.

    While ``waiting``, the first signal is only noted, for training to stop after its batch with a
    checkpoint; the second one, and any outside training, is raised where the program stands. In one of
    several processes a second one that comes at once is the first one's echo.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._noted = 0.0
        self._waits = False

    @property
    def wanted(self) -> bool:
        """Whether a signal has come that was not raised."""
        return self._number is not None

    def obey(self) -> None:
        """Raise the signal that was noted, here or in another of the processes that train together.

        Raises:
            Interrupted: always.
        """
        raise Interrupted(self._number or signal.SIGTERM)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Note the first signal instead of raising it, while inside; one that was never obeyed is raised."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        if self.wanted:
            self.obey()

    def install(self) -> None:
        """Take the signals; called again where a library has put its own handler over it."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._waits and self._number is None:
            self._number, self._noted = number, time.monotonic()
            log.warning("%s: stopping after this batch, with a checkpoint", signal.Signals(number).name)
        elif not (self._waits and ranks.world_size() > 1 and time.monotonic() - self._noted < ECHO):
            raise Interrupted(number)


def stop_with_input() -> None:
    """Ask this process to stop once its standard input ends: whoever started it is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Take the signals while inside, and give them back."""
    stop = StopRequest()
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS} if main else {}
    stop.install()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
