"""Signals that ask a run to stop: raised at once, or in training after the batch, with a checkpoint."""

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

# One Ctrl-C can arrive twice at one of several processes: from the supervisor and from the parent.
SECONDS_OF_DUPLICATES = 1.0

# Slurm warns by SIGUSR1 or SIGUSR2 before it ends a job, a container's host by SIGTERM.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class Interrupted(BaseException):
    """A signal, by its number, asked to stop; no Exception, so that nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 130 if number == signal.SIGINT else 143


class Pruned(Interrupted):
    """A study stopped a trial that fell behind the others; its run can be resumed like any other."""

    def __init__(self, reason: str) -> None:
        BaseException.__init__(self, reason)
        self.exit_code = 0


class StopRequest:
    """Whether a signal asked to stop.

    While ``deferred``, the first signal is only noted: training stops after its batch, with a checkpoint. A
    second one, and any outside training, is raised where the program stands.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._noted_at = 0.0
        self._defers = False

    @property
    def received(self) -> bool:
        """Whether a signal was noted that has not been raised."""
        return self._number is not None

    def raise_interrupted(self) -> None:
        """Raise the signal that was noted, here or in another of the processes that train together."""
        raise Interrupted(self._number or signal.SIGTERM)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, note the first signal; at the end it is raised if nobody has raised it."""
        self._defers = True
        try:
            yield
        finally:
            self._defers = False
        if self.received:
            self.raise_interrupted()

    def install_handlers(self) -> None:
        """Take the signals; called again where a library has put its own handler over it."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        age = time.monotonic() - self._noted_at
        if self._defers and self._number is None:
            self._number, self._noted_at = number, time.monotonic()
            log.warning("%s: stopping after this batch, with a checkpoint", signal.Signals(number).name)
        elif not (self._defers and ranks.world_size() > 1 and age < SECONDS_OF_DUPLICATES):
            raise Interrupted(number)


def stop_with_input() -> None:
    """Send this process SIGTERM once its standard input ends: the process that started it is gone."""

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
    stop.install_handlers()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
