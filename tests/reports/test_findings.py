from __future__ import annotations

from pathlib import Path

import pytest

from bunryu.reports import tables
from bunryu.reports.page import page
from helpers.comparing import findings_of, lr_runs, made_run


def test_a_difference_beyond_seed_noise_is_said_with_its_size(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.30, 0.32, 0.31, 0.33], 0.2: [0.50, 0.53, 0.50, 0.52], 0.3: [0.6, 0.7]})
    found = findings_of(tmp_path)
    assert found.answer == "yes"
    assert found.verdict.startswith(
        "Yes: the best (optimizer.lr=0.1) differs from the second (optimizer.lr=0.2) beyond seed noise. "
        "Its val/loss is 0.1975 lower on average (4 shared seeds, p = "
    )
    # per seed the best is wrong on 3 rows and the second on 5, its 3 among them
    by_seed = [(each.seed, each.won, each.lost, each.p) for each in found.mcnemar]
    assert by_seed == [(seed, 2, 0, 0.5) for seed in "1234"]
    assert found.row_verdict == (
        "Row by row on test their predictions do not differ in how many are right: over 4 seeds, 8 rows are "
        "right only for the best and 0 only for the second (McNemar, exact; twice the median of each seed's "
        "p = 1)."
    )
    assert "Its val/accuracy is 0.1975 higher on" in findings_of(tmp_path, "val/accuracy").verdict
    table = tmp_path / "sample-tiny/run-0.1-1/predictions/test.csv"  # now of other rows
    table.write_text(table.read_text("utf-8").replace("0,긍정", "77,긍정", 1), "utf-8")
    (tmp_path / "sample-tiny/run-0.2-2/predictions/test.csv").write_text("row\n1\n", "utf-8")
    assert [each.seed for each in findings_of(tmp_path).mcnemar] == ["3", "4"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            (0, 2, 4, 6, 8),
            ["no run beats always answering the commonest label", "every run predicts one class only"],
        ),
        ((0, 1, 2, 3, 4), ["no run beats always answering the commonest label"]),
        ((0, 1, 2, 3), []),
    ],
)
def test_runs_that_have_learnt_nothing_are_named(
    wrong: tuple[int, ...], said: list[str], tmp_path: Path
) -> None:
    for seed in (1, 2):
        made_run(tmp_path, f"run-{seed}", 0.5, seed=seed, wrong=wrong)
    assert findings_of(tmp_path).comparison.notes == said


def test_scores_on_test_are_shown_beside_the_metric_that_decides(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.8, 0.84, None), 1):
        made_run(tmp_path, f"run-{seed}", 0.5, seed=seed, test=accuracy)
    made_run(tmp_path, "other", 0.6, ["lr=1"], lr=1)
    found = findings_of(tmp_path)
    header, rows = tables.group_table(found)
    assert header[-2:] == ["test/accuracy", "test std"]
    assert [row[-2:] for row in rows] == [["0.8200", "0.028"], ["–", "–"]]
    header, rows = tables.run_table(found)
    assert [row[header.index("test/accuracy")] for row in rows] == ["0.8000", "0.8400", "–", "–"]
    assert "& 0.8200 & 0.028" in tables.latex(found)
    assert page(found, "t", "").count("0.8200") == 1
    by_test = findings_of(tmp_path, "test/accuracy")
    assert (by_test.test, "test std" in tables.group_table(by_test)[0]) == ("", False)


def test_noise_is_called_noise_with_what_could_have_been_seen(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.30, 0.45, 0.31, 0.33], 0.2: [0.40, 0.33, 0.35, 0.36]})
    found = findings_of(tmp_path)
    assert found.gap and found.answer == "no"
    assert f"4 seeds show no difference below {found.gap.smallest:.2g}." in found.verdict


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ({0.1: [0.3], 0.2: [0.5]}, "share 1 seed, and seed noise shows only in two or more"),
        ({0.1: [0.3, 0.4], 0.2: [0.5, 0.6]}, "differ by the same for each of 2 shared seeds"),
        ({0.1: [0.3, 0.4]}, "all finished runs have one configuration"),
        ({}, "no run has finished"),
    ],
)
def test_too_little_to_tell_is_said(tmp_path: Path, losses: dict[float, list[float]], why: str) -> None:
    lr_runs(tmp_path, losses)
    made_run(tmp_path, "waiting", None, status="interrupted", cause="SIGTERM")
    found = findings_of(tmp_path)
    assert found.answer == "cannot tell"
    assert why in found.verdict
    assert "</html>" in page(found, "t", "")  # a page of whatever there is
