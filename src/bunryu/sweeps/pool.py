"""A pool of processes: as soon as one has ended the next one begins in its slot, its share of the machine.

Every process is a fork of one that has imported what all of them need, and that has done nothing else: no
thread, no device. So a job begins at once, frees all of its memory when it ends, and dies alone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import TypeVar

from bunryu.system.secrets import mask_streams
from bunryu.system.signals import SIGNALS, Interrupted

Item = TypeVar("Item")

WARM = ("bunryu.training.distributed",)  # imported once, before the first fork
SECONDS_TO_STOP = 10.0  # that a process has after a second Ctrl-C: native code sees no other signal


@dataclass(frozen=True)
class Slot:
    """A share of the machine."""

    threads: int | None = None  # for PyTorch on the CPU; None for its own choice
    devices: str | None = None  # what CUDA_VISIBLE_DEVICES is set to; None to leave it alone


def slots(number: int, cores: int, devices: Sequence[str], each: int) -> list[Slot]:
    """Equal shares of the machine for a number of jobs at once; one alone has all of it.

    Each job uses ``each`` of the devices, names of graphics cards; if there are too few, jobs share them.
    """
    if number == 1:
        return [Slot()]
    threads = max(1, cores // number)
    if not devices:
        return [Slot(threads)] * number
    taken = [[devices[(slot * each + card) % len(devices)] for card in range(each)] for slot in range(number)]
    return [Slot(threads, ",".join(dict.fromkeys(cards))) for cards in taken]


def start_forkserver() -> None:
    """Start the process that all others will be forks of; it imports what they need in the background."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # counting cards must not initialise one before a fork
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(WARM))
    forkserver.ensure_running()
    atexit.unregister(_stop_forkserver)
    atexit.register(_stop_forkserver)


def _stop_forkserver() -> None:
    """End that process with this one; by itself it would finish its imports first."""
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)  # there is no public way
    if pid is not None:
        os.kill(pid, signal.SIGTERM)


def run_in_slots(
    items: Iterable[Item],
    work: Callable[[Item, Slot], int],
    free: Sequence[Slot],
    log: Callable[[Item], Path],
) -> Iterator[tuple[Item, int]]:
    """Do work on each item in a process of its own, whose output is added to the item's log.

    Yields each item with its process's exit code, as they end; below zero it is the signal that ended it.
    The next item is taken when there is a slot for it; items and ``work`` are pickled. If this process is
    asked to stop, or dies, the others get SIGTERM; it waits for them, and raises Interrupted. Asked again, it
    kills what has not ended after SECONDS_TO_STOP.
    """
    start_forkserver()
    context = multiprocessing.get_context("forkserver")
    waiting, idle = iter(items), list(free)
    busy: dict[ForkServerProcess, tuple[Item, Slot]] = {}
    with _signals_passed_on(busy) as stopped:
        while True:
            while idle and not stopped and (item := next(waiting, None)) is not None:
                slot = idle.pop(0)
                process = context.Process(target=_enter, args=(work, item, slot, log(item), dict(os.environ)))
                process.start()
                busy[process] = (item, slot)
                if stopped:  # while it was started
                    process.terminate()
            if not busy:
                break
            ready = multiprocessing.connection.wait([process.sentinel for process in busy])
            for process in [process for process in busy if process.sentinel in ready]:
                process.join()
                item, slot = busy.pop(process)
                idle.append(slot)
                is_killed = len(stopped) > 1 and process.exitcode == -signal.SIGKILL
                yield item, -signal.SIGINT if is_killed else process.exitcode or 0
    if stopped:
        raise Interrupted(stopped[0])


@contextmanager
def _signals_passed_on(busy: Mapping[ForkServerProcess, object]) -> Iterator[list[int]]:
    """Pass signals that ask to stop on to the busy processes, and note them; in the end all are stopped."""
    stopped: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        stopped.append(number)
        for process in list(busy):
            process.terminate()
            if len(stopped) > 1:
                killer = threading.Timer(SECONDS_TO_STOP, process.kill)
                killer.daemon = True
                killer.start()

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, pass_on) for number in SIGNALS} if main else {}
    try:
        yield stopped
    finally:
        for process in list(busy):
            process.terminate()
        for process in list(busy):
            process.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _enter(
    work: Callable[[Item, Slot], int], item: Item, slot: Slot, log: Path, environment: dict[str, str]
) -> None:
    """The main function of a new process, which ends with the exit code that the work returns."""
    os.setsid()  # Ctrl-C reaches only the first process, which passes it on once
    os.environ.clear()
    os.environ.update(environment)
    if slot.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.devices
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    mask_streams(sys.stdout, sys.stderr)
    _end_with_parent()
    sys.exit(work(item, slot))


def _end_with_parent() -> None:
    """Have this process stop, by SIGTERM, once the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
