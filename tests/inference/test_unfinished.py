"""Rows of predictions before their file is complete."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bunryu.errors import BunryuError, BusyError, DataError
from bunryu.inference.unfinished import Unfinished
from helpers.killing import Fork
from helpers.refusing import refused


def write(path: Path, error: BaseException | None = None, resume: bool = False) -> None:
    """Write two rows after those that are there, and a part of a third if an error then stops it."""
    output = Unfinished(path, resume)
    with output.opened({"file": "a"}) as file:
        for _ in range(2):
            file.write(f"{output.rows + 1}\n")
            file.flush()
            output.reached(output.rows + 1)
        if error is not None:
            file.write("half a r")
            raise error


@pytest.mark.parametrize(
    ("error", "left"),
    [(OSError(errno.ENOSPC, "full"), True), (KeyboardInterrupt(), True), (DataError("row 3"), False)],
)
def test_rows_stay_unless_the_input_is_at_fault(error: BaseException, left: bool, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "out.csv", error)
    names = {"out.csv.partial", "out.csv.partial.json"} if left else set()
    assert {path.name for path in tmp_path.iterdir()} == names
    write(tmp_path / "out.csv", resume=True)
    assert (tmp_path / "out.csv").read_text() == ("1\n2\n3\n4\n" if left else "1\n2\n")


def test_a_record_without_its_rows_is_none(tmp_path: Path) -> None:
    (tmp_path / "out.csv.partial.json").write_text('{"rows": 9, "bytes": 18, "request": {"file": "a"}}')
    write(tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("damage", ["", "[]", '{"rows": 1, "bytes": 99, "request": {"a": 1}}', "[" * 5000])
def test_a_damaged_record_is_refused_with_what_to_remove(damage: str, tmp_path: Path) -> None:
    (tmp_path / "out.csv.partial").write_text("1\n2\n")
    (tmp_path / "out.csv.partial.json").write_text(damage)
    error = refused(BunryuError, write, tmp_path / "out.csv", resume=True)
    assert error.what == "out.csv.partial.json is damaged"
    assert error.fix.endswith(f"rm {tmp_path / 'out.csv.partial'}")


def test_two_processes_do_not_write_the_same_file(tmp_path: Path) -> None:
    (opened, say_opened), (end, say_end) = os.pipe(), os.pipe()

    def work() -> int:
        with Unfinished(tmp_path / "out.csv", False).opened({}) as file:
            file.write("theirs\n")
            os.write(say_opened, b".")
            os.read(end, 1)
        return 0

    fork = Fork(tmp_path / "log", work)
    os.read(opened, 1)
    error = refused(BusyError, write, tmp_path / "out.csv")
    os.write(say_end, b".")
    assert (error.exit_code, fork.code()) == (4, 0)
    assert (tmp_path / "out.csv").read_text() == "theirs\n"
