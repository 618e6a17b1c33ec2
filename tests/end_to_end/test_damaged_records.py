"""A damaged record of a run, model folder or sweep is answered in a sentence by every verb."""

from __future__ import annotations

import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bunryu import cli
from bunryu.errors import DamagedError, ModelError, TrainingError
from bunryu.runs.run import Run
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.runner import GridJobs, table
from bunryu.training.checkpoints import read_checkpoint, steps_of
from helpers.damaging import HUGE, changed, damaged, restored
from helpers.refusing import edit_json, error_of, refused

# what reads each record of a run first, or most of it
READERS = {
    "manifest.json": ["evaluate", "report", "resume", "reproduce"],
    "config.yaml": ["evaluate", "resume", "reproduce"],
    "results.json": ["evaluate", "report"],
    "metrics.csv": ["evaluate", "report"],
    "predictions/test.csv": ["report"],
    "model/bunryu.json": ["predict", "evaluate"],
    "model/config.json": ["predict", "export"],
    "model/tokenizer.json": ["predict"],
    "model/tokenizer_config.json": ["predict"],
}
quickly = settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Path:
    """A copy to damage, beside one to compare it with."""
    for name in ("other", trained.path.name):
        copied = shutil.copytree(trained.path, tmp_path / "outputs/sample-tiny" / name)
    return Path(copied)


def arguments(verb: str, run: Path) -> list[str]:
    beside = run.parents[1]
    (beside / "in.tsv").write_text("document\n재미있다\n", "utf-8")
    more = {"predict": [f"{beside}/in.tsv", "-o", f"{beside}/out.csv"]}
    return [verb, str(beside if verb == "report" else run), *more.get(verb, [])]


@quickly
@given(data=st.data())
def test_whatever_is_damaged_every_verb_works_or_says_what_it_cannot_use(
    run: Path, data: st.DataObject
) -> None:
    def enough(*_: Any, **__: Any) -> None:
        raise TrainingError("enough")

    name, verb = data.draw(
        st.sampled_from([(name, verb) for name, verbs in READERS.items() for verb in verbs])
    )
    path = run / name
    with restored(path, run / "manifest.json"), StringIO() as out, StringIO() as said:
        if verb == "resume":
            edit_json(run / "manifest.json", lambda manifest: {**manifest, "status": "interrupted"})
        done = data.draw(damaged(path))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(said):
            for heavy in ("training.recipe.build", "inference.onnx_export.export_onnx"):
                patch.setattr(f"bunryu.{heavy}", enough)
            code = cli.run(arguments(verb, run))
        assert code in (0, 1, 2), done
        assert code == 0 or f"bunryu {verb}: " in said.getvalue()
        printed = (out.getvalue() + said.getvalue()).replace("\n", "").replace("\r", "")
        assert printed.isprintable(), done


@pytest.mark.parametrize(
    ("name", "place", "odd", "said"),
    [
        ("manifest.json", "threads", 5000, "Input should be less than or equal to 1024; found 5000"),
        ("manifest.json", "status", "\x1b[2J", r"Input should be 'running', 'finished', 'failed'"),
        ("manifest.json", "corpus.labels", ..., "Field required; found {'"),
        ("config.yaml", "datamodule.batch_size", -1, "Input should be greater than 0; found -1"),
        ("model/bunryu.json", "parity.0.text", "가" * 10**6, "String should have at most 100000 ch"),
        ("model/config.json", "id2label", 3, "Input should be a valid dictionary; found 3"),
    ],
)  # fmt: skip
def test_file_key_and_what_was_found_are_named(name: str, place: str, odd: Any, said: str, run: Path) -> None:
    path, keys = run / name, [int(key) if key.isdigit() else key for key in place.split(".")]
    if path.suffix == ".json":
        edit_json(path, lambda facts: changed(facts, tuple(keys), odd))
    else:
        path.write_text(
            path.read_text("utf-8").replace("  batch_size: 16\n", f"  batch_size: {odd}\n"), "utf-8"
        )
    error = error_of(1, *arguments("predict" if name.startswith("model") else "evaluate", run))
    assert f": {path.name} is damaged: {place}: {said}" in error
    assert f"\n  where: {path}\n" in error


def test_files_too_long_and_numbers_too_large_are_refused_before_they_are_worked_on(run: Path) -> None:
    model = run / "model"
    tokenizer, config = (model / name for name in ("tokenizer.json", "config.json"))
    whole = tokenizer.read_bytes()
    with open(tokenizer, "r+b") as file:
        file.truncate(HUGE)
    said = f"tokenizer.json is damaged: it has {HUGE:,} bytes, more than 67,108,864\n"
    assert said in error_of(1, *arguments("predict", run))
    tokenizer.write_bytes(whole)
    for key, number, more in (("num_hidden_layers", 10**7, 1000), ("hidden_size", 10**9, 2**21)):
        facts = config.read_text("utf-8")
        edit_json(config, lambda found: found | {key: number})  # noqa: B023
        error = error_of(1, *arguments("predict", run))
        assert (
            f"config.json is damaged: {key} is {number}, which is more than {more}\n  where: {config}"
            in error
        )
        config.write_text(facts, "utf-8")
    tokenizer.unlink()
    os.mkfifo(tokenizer)
    assert "tokenizer.json is damaged: it is no file" in error_of(1, *arguments("predict", run))
    with open(model / "model.safetensors", "r+b") as file:
        file.truncate(HUGE)
    assert f"the weights have {HUGE:,} bytes, and " in error_of(1, *arguments("predict", run))


@pytest.mark.parametrize("verb", ["evaluate", "reproduce --dry-run"])
def test_to_look_at_a_run_fetches_nothing_into_the_folder_its_config_names(
    verb: str, run: Path, tmp_path: Path
) -> None:
    path, target = run / "config.yaml", "bunryu.data.corpora.Nsmc"
    config = yaml.safe_load(path.read_bytes())
    config["corpus"] |= {"_target_": target, "root_dir": str(tmp_path / "mine"), "force_download": True}
    path.write_text(yaml.safe_dump(config), "utf-8")
    error = error_of(1, *verb.split(), run)
    assert (
        f"NSMC is not there, and nothing is fetched to look at a run\n  where: {tmp_path}/mine/nsmc" in error
    )
    assert not (tmp_path / "mine").exists()


@quickly
@given(data=st.data())
def test_a_damaged_record_of_a_sweep_leaves_its_other_jobs_alone(tmp_path: Path, data: st.DataObject) -> None:
    ledger = Ledger.create(tmp_path / "sweeps/s", {"swept": ["seed"], "monitor": "min val/loss"})
    ledger.add({name: ([f"seed={name}"], {"seed": 1, "monitor": "min val/loss"}) for name in ("aaa", "bbb")})
    first = ledger.path / "jobs/aaa.1.json"
    first.unlink(missing_ok=True)
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.end("failed", "why", {"val/loss": 0.5})
    path = data.draw(st.sampled_from([first, ledger.path / "jobs/aaa.json"]))
    with restored(path):
        data.draw(damaged(path))
        jobs = {job.identity: job for job in ledger.jobs()}
        assert jobs["bbb"].status == "waiting"
        if jobs["aaa"].status == "damaged":
            assert str(jobs["aaa"].cause).startswith(f"{path.name} is damaged: ")
        assert len(table([*jobs.values()], ledger.facts)) == 2
        assert "bbb" in GridJobs(ledger, ["aaa", "bbb"], retry=False).todo()
        assert cli.run(["report", str(ledger.path)]) in (0, 2)  # 2: it may watch another metric now


OWN = {"bunryu": {"steps": 3, "batches_seen": 6}, "metrics_bytes": 22, "state_dict": {}}


@pytest.mark.parametrize("place", [("bunryu",), ("bunryu", "steps"), ("metrics_bytes",)])
@pytest.mark.parametrize("odd", [..., None, -1, "3", [3]])
def test_a_checkpoint_s_own_keys_are_of_their_types(tmp_path: Path, place: tuple[str, ...], odd: Any) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(OWN, path)
    assert (steps_of(path), read_checkpoint(path)) == (3, OWN)
    torch.save(changed(OWN, place, odd), path)
    assert refused(DamagedError, steps_of, path).what.startswith(f"last.ckpt is damaged: {'.'.join(place)}: ")
    path.write_bytes(path.read_bytes()[:100])
    assert refused(ModelError, read_checkpoint, path).where == str(path)
