"""Slots that are filled again at once, in processes whose ends are known and that end with their driver."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bunryu.sweeps import pool
from bunryu.sweeps.pool import Slot, run_in_slots, slots
from bunryu.system.signals import Interrupted
from helpers.sweeping import Driver, until


def do(item: dict[str, Any], slot: Slot) -> int:
    """What the processes of these tests do; it runs in a fork of the fork server."""
    what = item["do"]
    if what == "report":
        names = ("CUDA_VISIBLE_DEVICES", "POOL_TEST")
        facts = [slot.threads, *map(os.environ.get, names), os.getcwd(), "torch" in sys.modules]
        print(json.dumps([*facts, os.getsid(0) == os.getpid()]), flush=True)
        print("and an error", file=sys.stderr, flush=True)
    elif what == "die":
        os.kill(os.getpid(), item["signal"])
        time.sleep(60)
    elif what == "raise":
        raise RuntimeError("no good")
    elif what == "wait":
        begun, may_end, ended = (Path(f"{item['path']}.{end}") for end in ("begun", "may-end", "ended"))
        stopped: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stopped.append(number))
        begun.touch()
        while not stopped and not may_end.exists():
            time.sleep(0.005)
        time.sleep(0.1)  # for a second signal, if one were sent
        ended.write_text(json.dumps(stopped), "utf-8")
        return 143 if stopped else 0
    elif what == "stick":  # in native code, where no handler is called
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(f"{item['path']}.begun").touch()
        time.sleep(60)
    return int(item.get("code", 0))


def run(folder: Path, items: Iterable[dict[str, Any]], *free: Slot) -> Iterator[tuple[str, int]]:
    """The items' names and exit codes."""
    items = ({"path": str(folder / item["name"]), **item} for item in items)
    for item, code in run_in_slots(items, do, free, lambda item: Path(f"{item['path']}.log")):
        yield item["name"], code


def waiting(names: str) -> list[dict[str, Any]]:
    return [{"name": name, "do": "wait"} for name in names]


def test_exit_codes_signals_and_exceptions_are_passed_on(tmp_path: Path) -> None:
    items = [
        {"name": "code", "do": "nothing", "code": 7},
        {"name": "killed", "do": "die", "signal": signal.SIGKILL},
        {"name": "ended", "do": "die", "signal": signal.SIGTERM},
        {"name": "raised", "do": "raise"},
        {"name": "fine", "do": "nothing"},
    ]
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    codes = list(run(tmp_path, items, Slot()))
    assert [signal.getsignal(number) for number in numbers] == before
    assert codes == [("code", 7), ("killed", -9), ("ended", -15), ("raised", 1), ("fine", 0)]
    assert "RuntimeError: no good" in (tmp_path / "raised.log").read_text("utf-8")


def test_what_a_process_has_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_TEST", "분류")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.log").write_text("before\n", "utf-8")
    list(run(tmp_path, [{"name": "a", "do": "report"}], Slot(3, "1")))
    monkeypatch.delenv("POOL_TEST")
    list(run(tmp_path, [{"name": "b", "do": "report"}], Slot()))
    (before, a, error), (b, _) = ((tmp_path / f"{name}.log").read_text("utf-8").splitlines() for name in "ab")
    assert json.loads(a) == [3, "1", "분류", str(tmp_path), True, True]
    assert json.loads(b) == [None, "0,1", None, str(tmp_path), True, True]
    assert (before, error) == ("before", "and an error")


def test_a_slot_is_filled_when_it_is_free_and_no_item_is_asked_for_before(tmp_path: Path) -> None:
    asked: list[str] = []
    items = (asked.append(item["name"]) or item for item in waiting("abc"))
    work = run(tmp_path, items, Slot(1), Slot(1))
    (tmp_path / "b.may-end").touch()
    assert (next(work), asked) == (("b", 0), ["a", "b"])
    (tmp_path / "c.may-end").touch()
    assert (next(work), asked) == (("c", 0), ["a", "b", "c"])  # a still has its slot
    assert not (tmp_path / "a.ended").exists()
    work.close()  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "a.ended").read_text("utf-8")) == [
        signal.SIGTERM
    ]  # nobody wants it any more


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_processes_are_stopped_once_with_their_driver(number: int, exit_code: int, tmp_path: Path) -> None:
    def work() -> int:
        try:
            for name, code in run(tmp_path, waiting("abc"), Slot(1), Slot(1)):
                print(name, code, flush=True)
        except Interrupted as error:
            return error.exit_code
        return 0

    driver = Driver(tmp_path / "driver.log", work)
    until(lambda: (tmp_path / "a.begun").exists() and (tmp_path / "b.begun").exists())
    assert driver.stop(number) == exit_code
    if number != signal.SIGKILL:  # it has waited for them
        assert sorted((tmp_path / "driver.log").read_text("utf-8").splitlines()) == ["a 143", "b 143"]
    for ended in (tmp_path / "a.ended", tmp_path / "b.ended"):
        until(lambda: ended.exists() and ended.read_text("utf-8"))  # noqa: B023
        assert json.loads(ended.read_text("utf-8")) == [signal.SIGTERM]
    assert not (tmp_path / "c.begun").exists()


def test_a_process_that_cannot_stop_is_killed_after_a_second_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SECONDS_TO_STOP", 0.1)

    def work() -> int:
        with pytest.raises(Interrupted):
            for name, code in run(tmp_path, [{"name": "a", "do": "stick"}], Slot()):
                print(name, code, flush=True)
        return 0

    driver = Driver(tmp_path / "driver.log", work)
    until((tmp_path / "a.begun").exists)
    os.kill(driver.pid, signal.SIGINT)
    time.sleep(0.3)
    assert (tmp_path / "driver.log").read_text("utf-8") == ""
    assert driver.stop(signal.SIGINT) == 0
    assert (tmp_path / "driver.log").read_text("utf-8") == "a -2\n"


@pytest.mark.parametrize(
    ("number", "cores", "devices", "each", "expected"),
    [
        (1, 8, ["0", "1"], 1, [Slot()]),
        (3, 2, [], 1, [Slot(1)] * 3),
        (3, 8, ["4", "GPU-b"], 1, [Slot(2, "4"), Slot(2, "GPU-b"), Slot(2, "4")]),
        (2, 8, ["0", "1", "2", "3"], 2, [Slot(4, "0,1"), Slot(4, "2,3")]),
    ],
)
def test_shares(number: int, cores: int, devices: list[str], each: int, expected: list[Slot]) -> None:
    assert slots(number, cores, devices, each) == expected
