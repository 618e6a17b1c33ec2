"""The one family of errors that users see: what is wrong, where, and how to fix it."""

from __future__ import annotations


class BunryuError(Exception):
    """Something a user can mend; printed without a traceback.

    Args:
        what: what is wrong, in one line.
        where: the key, file:line or folder concerned.
        fix: what to type or change.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return printable("\n".join(lines))


class ConfigError(BunryuError):
    """A key, value, option or command line that cannot work."""

    exit_code = 2


class DataError(BunryuError):
    """A corpus that cannot be read as asked."""


class DownloadError(BunryuError):
    """A corpus or model that could not be fetched."""


class ModelError(BunryuError):
    """Weights, vocabulary or architecture that do not fit."""


class DamagedError(ModelError):
    """A file of a run, model folder or sweep that is not as bunryu writes it."""


class TrainingError(BunryuError):
    """Training that cannot go on, such as a loss that is not finite."""


class OutOfMemory(BunryuError):
    """The device or the machine ran out of memory."""

    exit_code = 3


class BusyError(BunryuError):
    """A run directory that another process is writing to."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """What another library's error says, without what it goes on to say."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable(text: str) -> str:
    """The text with escapes for what would move or colour a terminal instead of being shown."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)
