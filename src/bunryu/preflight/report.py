"""What a check found, collected, with the exit code that follows from it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from bunryu.errors import BunryuError

EVERY = -1  # in place of a job's number


@dataclass
class Report:
    """What was found, printed as it comes; problems are kept for the end."""

    problems: dict[str, list[int]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def add(self, job: int, problem: BunryuError | None) -> None:
        """Keep a problem of a job; the same one of several jobs is printed once."""
        if problem is not None:
            self.problems.setdefault(str(problem), []).append(job)

    def say(self, *lines: str) -> None:
        self.said.update(lines)
        for line in lines:
            print(line, flush=True)

    def code(self, jobs: int) -> int:
        """Print the problems; returns the exit code."""
        for text, numbers in self.problems.items():
            which = sorted(set(numbers))
            shown = ", ".join(map(str, which[:10])) + (" …" if len(which) > 10 else "")
            of = f"\n  jobs:  {shown} of {jobs}" if EVERY not in which and len(which) < jobs else ""
            print(f"bunryu check: {text}{of}", file=sys.stderr, flush=True)
        return 2 if self.problems else 0
