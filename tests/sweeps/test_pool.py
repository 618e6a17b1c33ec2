"""Slots that are filled again at once, in processes whose ends are told and that end with their driver."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bunryu.sweeps.pool import Slot, run_in_slots, slots
from bunryu.system.signals import Interrupted
from helpers.sweeping import Driver, until


def do(item: dict[str, Any], slot: Slot) -> int:
    """What the processes of these tests do; it runs in a fork of the fork server."""
    what = item["do"]
    if what == "report":
        facts = {
            "threads": slot.threads,
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "variable": os.environ.get("POOL_TEST"),
            "folder": os.getcwd(),
            "torch": "torch" in sys.modules,
            "session": os.getsid(0) == os.getpid(),
        }
        print(json.dumps(facts), flush=True)
        print("and an error", file=sys.stderr, flush=True)
    elif what == "die":
        os.kill(os.getpid(), item["signal"])
        time.sleep(60)
    elif what == "raise":
        raise RuntimeError("no good")
    elif what == "wait":
        stopped: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stopped.append(number))
        Path(item["folder"], f"{item['name']}.begun").write_text(str(os.getpid()), "utf-8")
        while not stopped and not Path(item["folder"], f"{item['name']}.may-end").exists():
            time.sleep(0.005)
        time.sleep(0.1)  # for a second signal, if one were sent
        Path(item["folder"], f"{item['name']}.ended").write_text(json.dumps(stopped), "utf-8")
        return 143 if stopped else 0
    return int(item.get("code", 0))


def ran(folder: Path, items: list[dict[str, Any]], free: list[Slot]) -> list[tuple[dict[str, Any], int]]:
    return list(run_in_slots(items, do, free, lambda item: folder / f"{item['name']}.log"))


def test_exit_codes_signals_and_exceptions_are_told(tmp_path: Path) -> None:
    items = [
        {"name": "fine", "do": "nothing"},
        {"name": "code", "do": "nothing", "code": 7},
        {"name": "killed", "do": "die", "signal": signal.SIGKILL},
        {"name": "ended", "do": "die", "signal": signal.SIGTERM},
        {"name": "raised", "do": "raise"},
        {"name": "fine again", "do": "nothing"},
    ]
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    codes = [(item["name"], code) for item, code in ran(tmp_path, items, [Slot()])]
    assert [signal.getsignal(number) for number in numbers] == before
    assert codes == [
        ("fine", 0), ("code", 7), ("killed", -9), ("ended", -15), ("raised", 1), ("fine again", 0),
    ]  # fmt: skip
    assert "RuntimeError: no good" in (tmp_path / "raised.log").read_text("utf-8")


def test_a_process_has_its_slot_the_environment_the_folder_and_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL_TEST", "분류")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.log").write_text("before\n", "utf-8")
    ran(tmp_path, [{"name": "a", "do": "report"}], [Slot(3, "1")])
    monkeypatch.delenv("POOL_TEST")
    ran(tmp_path, [{"name": "b", "do": "report"}], [Slot()])
    (before, a, error), (b, _) = ((tmp_path / f"{name}.log").read_text("utf-8").splitlines() for name in "ab")
    expected = {"variable": "분류", "folder": str(tmp_path), "torch": True, "session": True}
    assert json.loads(a) == {**expected, "threads": 3, "devices": "1"}
    assert json.loads(b) == {**expected, "threads": None, "devices": "0,1", "variable": None}
    assert (before, error) == ("before", "and an error")


def test_a_slot_is_filled_as_soon_as_it_is_free_and_no_item_is_asked_for_before(tmp_path: Path) -> None:
    asked: list[str] = []

    def items() -> Iterator[dict[str, Any]]:
        for name in "abc":
            asked.append(name)
            yield {"name": name, "do": "wait", "folder": str(tmp_path)}

    work = run_in_slots(items(), do, [Slot(1), Slot(1)], lambda item: tmp_path / f"{item['name']}.log")
    (tmp_path / "b.may-end").touch()
    item, code = next(work)
    assert (item["name"], code, asked) == ("b", 0, ["a", "b"])
    (tmp_path / "c.may-end").touch()
    item, code = next(work)  # a still has its slot
    assert (item["name"], code, asked) == ("c", 0, ["a", "b", "c"])
    assert not (tmp_path / "a.ended").exists()
    (tmp_path / "a.may-end").touch()
    assert [(item["name"], code) for item, code in work] == [("a", 0)]


def test_what_works_is_ended_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    items = [{"name": name, "do": "wait", "folder": str(tmp_path)} for name in "ab"]
    work = run_in_slots(items, do, [Slot(1), Slot(1)], lambda item: tmp_path / f"{item['name']}.log")
    (tmp_path / "a.may-end").touch()
    assert next(work)[0]["name"] == "a"
    until((tmp_path / "b.begun").exists)
    work.close()  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "b.ended").read_text("utf-8")) == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_the_processes_of_a_driver_that_is_asked_to_stop_or_killed_are_asked_once(
    number: int, exit_code: int, tmp_path: Path
) -> None:
    items = [{"name": name, "do": "wait", "folder": str(tmp_path)} for name in "abc"]

    def work() -> int:
        logs = lambda item: tmp_path / f"{item['name']}.log"  # noqa: E731
        try:
            for item, code in run_in_slots(items, do, [Slot(1), Slot(1)], logs):
                print(item["name"], code, flush=True)
        except Interrupted as error:
            return error.exit_code
        return 0

    driver = Driver(tmp_path / "driver.log", work)
    until(lambda: (tmp_path / "a.begun").exists() and (tmp_path / "b.begun").exists())
    driver.signal(number)
    assert driver.code() == exit_code
    if number != signal.SIGKILL:  # it has waited for them
        assert sorted((tmp_path / "driver.log").read_text("utf-8").splitlines()) == ["a 143", "b 143"]
    for ended in (tmp_path / "a.ended", tmp_path / "b.ended"):
        until(lambda: ended.exists() and ended.read_text("utf-8"))  # noqa: B023
        assert json.loads(ended.read_text("utf-8")) == [signal.SIGTERM]
    assert not (tmp_path / "c.begun").exists()


@pytest.mark.parametrize(
    ("number", "cores", "devices", "each", "expected"),
    [
        (1, 8, [], 1, [Slot()]),
        (1, 8, ["0", "1"], 1, [Slot()]),
        (2, 8, [], 1, [Slot(4), Slot(4)]),
        (3, 2, [], 1, [Slot(1)] * 3),
        (2, 8, ["0", "1"], 1, [Slot(4, "0"), Slot(4, "1")]),
        (3, 8, ["4", "GPU-b"], 1, [Slot(2, "4"), Slot(2, "GPU-b"), Slot(2, "4")]),
        (2, 8, ["0", "1", "2", "3"], 2, [Slot(4, "0,1"), Slot(4, "2,3")]),
        (2, 8, ["0"], 2, [Slot(4, "0"), Slot(4, "0")]),
    ],
)
def test_shares_of_the_machine(
    number: int, cores: int, devices: list[str], each: int, expected: list[Slot]
) -> None:
    assert slots(number, cores, devices, each) == expected
