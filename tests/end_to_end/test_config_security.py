"""A config runs no code but what may be called from one, whoever wrote it and wherever it stands."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bunryu import cli
from bunryu.config import schema, targets
from bunryu.config.compose import composing
from bunryu.config.instantiate import check_targets, instantiate
from bunryu.config.record import resolved, to_recorded
from bunryu.errors import ConfigError
from bunryu.keys import keys_of
from bunryu.runs.run import Run
from bunryu.training.recipe import execute
from helpers.composing import composed
from helpers.pickles import Payload
from helpers.refusing import error_of, refused
from helpers.training import Train


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_checking_a_target_imports_only_the_library_that_is_named() -> None:
    program = (
        "import sys\nfrom bunryu.config.instantiate import check_targets\n"
        "check_targets({'_target_': 'torch.optim.AdamW', '_partial_': True, 'lr': 1.0})\n"
        "assert 'torch' in sys.modules\n"
        "assert not {'transformers', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@functools.cache
def shipped_keys() -> list[str]:
    return list(keys_of(to_recorded(composed())))


VALUES = [
    "-1", "0", "2.5", "nan", "inf", "true", "null", "abc", "''", "[1,2]", "{a: 1}", "{null: a}", "{}", "???",
    "${seed}", "${nope}", "${epochs}", "${model}", "${oc.env:NOBODY}", "${oc.env:HOME}", "${oc.decode:'['}",
    "${oc.create:{_target_: os.system}}", "${foo:1}", "\\${seed}", "${", "9" * 30, "한글", "a/b", "os.system",
    "torch.optim.Adam", "torch..optim", "bunryu.data.corpora.Table", "[{trust_remote_code: true}]",
    "[{_target_: os.system}]", "{_target_: bunryu.data.cleaner.Cleaner}", "a\nb", "~", "[[[1]]]",
]  # fmt: skip


class Accepted(Exception):
    """Raised where a run directory would be made."""


@st.composite
def overrides(draw: st.DrawFn) -> str:
    prefix = draw(st.sampled_from(["", "", "+", "++", "~"]))
    key = draw(st.sampled_from([*shipped_keys(), *schema.GROUPS[:-1]]))
    below = draw(st.sampled_from(["", "", "", ".x", "._target_", "._args_", ".a.b"]))
    value = draw(st.sampled_from([*VALUES, None]) | st.text("aé가$ {}[](),:='\"\\~.0-", max_size=8))
    return f"{prefix}{key}{below}" if value is None else f"{prefix}{key}{below}={value}"


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.lists(overrides(), min_size=1, max_size=2))
@example(["accelerator=[[[1]]]"])
@example(["corpus/cleaner=${oc.decode:'{a: 1}'}"])
@example(["+hydra=${seed}"])
def test_no_override_gives_a_traceback_or_leaves_a_directory(given_: list[str]) -> None:
    def accepted(*_: Any) -> None:
        raise Accepted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "create", accepted)
        with contextlib.suppress(Accepted):
            assert cli.run(["train", *given_]) == 2
    assert list(Path.cwd().iterdir()) == []


# What each would do if it were called: make the file, or take it away.
ATTACKS: list[tuple[str, dict[str, Any]]] = [
    ("torch.load", {"f": "{payload}", "weights_only_": False}),
    ("torch.load", {"_args_": ["{payload}"], "weights_only": False}),
    ("os.system", {"command": "touch {canary}"}),
    ("builtins.eval", {"_args_": ["open({canary!r}, 'w')"]}),
    ("pathlib.Path.unlink", {"_args_": ["{payload}"]}),
    ("torch.optim.adam.torch.os._exit", {"status": 3}),
    ("transformers.utils.import_utils.os.system", {"command": "touch {canary}"}),
    ("bunryu.runs.provenance.subprocess.Popen", {"args": ["touch", "{canary}"]}),
    ("hydra.utils.instantiate", {"config": {"_target_": "os.system", "command": "touch {canary}"}}),
    ("bunryu.config.instantiate.instantiate", {"node": {"_target_": "os.system", "command": "x"}}),
    ("os", {"system": "touch {canary}"}),
    ("torch.hub.load", {"repo_or_dir": "{folder}", "model": "evil", "source": "local"}),
]
PLACES = ["corpus", "corpus.cleaner", "corpus.label_names", "in a list", "deep", "optimizer"]


def filled(value: Any, **names: str) -> Any:
    if isinstance(value, dict):
        return {key: filled(part, **names) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, **names) for part in value]
    return value.format(**names) if isinstance(value, str) else value


def placed(recorded: dict[str, Any], place: str, node: Any) -> dict[str, Any]:
    """The recorded config with a node put somewhere into it."""
    corpus = recorded["corpus"]
    return {
        "corpus": {**recorded, "corpus": {"name": "x", **node} if isinstance(node, dict) else node},
        "corpus.cleaner": {**recorded, "corpus": {**corpus, "cleaner": node}},
        "corpus.label_names": {**recorded, "corpus": {**corpus, "label_names": node}},
        "in a list": {**recorded, "corpus": {**corpus, "cleaner": [[node]]}},
        "deep": {**recorded, "corpus": {**corpus, "label_names": {0: [{"b": {"c": node}}]}}},
        "optimizer": {**recorded, "optimizer": node},
    }[place]


@pytest.fixture
def tampered(trained: Run, tmp_path: Path) -> Any:
    """``tampered(change)``: a run directory whose config.yaml is what ``change`` makes of it."""
    folder = tmp_path / "tampered"
    folder.mkdir()
    for path in trained.path.iterdir():
        if path.name not in ("config.yaml", "evaluations"):
            (folder / path.name).symlink_to(path)

    def make(change: Any) -> Run:
        text = change if isinstance(change, str) else yaml.safe_dump(change(trained.config))
        (folder / "config.yaml").write_text(text, "utf-8")
        return Run(folder)

    return make


@pytest.mark.parametrize("place", PLACES)
def test_a_tampered_run_directory_executes_nothing(
    place: str, tampered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, payload, hub = tmp_path / "canary", tmp_path / "payload", tmp_path / "hub"
    torch.save({"x": Payload(canary)}, payload)
    hub.mkdir()
    (hub / "hubconf.py").write_text(f"open({str(canary)!r}, 'w')\n", "utf-8")
    monkeypatch.setattr("os._exit", lambda _: canary.touch())
    for target, arguments in ATTACKS:
        node = {"_target_": target, **arguments}
        node = filled(node, canary=str(canary), payload=str(payload), folder=str(hub))
        run = tampered(lambda recorded, node=node: placed(recorded, place, node))
        with pytest.raises(ConfigError):
            check_targets(resolved(run.config, str(run.path)))
        if place != "optimizer":  # evaluate makes nothing of it
            said = error_of(2, "evaluate", run.path)
            assert "may not be called from a config" in said or "could let a checkpoint run code" in said
            assert "Traceback" not in said
        assert not canary.exists(), target
        assert payload.exists(), target
    assert not (tmp_path / "tampered/evaluations").exists()
    torch.load(payload, weights_only=False)
    assert canary.exists(), "what would have made it"


def test_neither_evaluate_nor_resume_makes_anything_of_a_run_with_one_foreign_target(tampered: Any) -> None:
    node = {"_target_": "torch.optim.adam.torch.os.system", "command": "true", "_partial_": True}
    run = tampered(lambda recorded: placed(recorded, "optimizer", node))
    before = (run.path / "manifest.json").read_bytes()
    error = refused(ConfigError, execute, run, resume=True)
    assert "may not be called" in str(error)
    assert error.where == "optimizer._target_"
    assert (run.path / "manifest.json").read_bytes() == before
    tampered(lambda recorded: placed(recorded, "optimizer", {"_target_": "os.system"}))
    assert "where: optimizer._target_" in error_of(2, "evaluate", run.path)


@pytest.mark.parametrize("place", PLACES)
def test_loading_options_are_refused_at_any_depth(place: str, tampered: Any) -> None:
    for key in ("trust_remote_code", "weights_only", "use_safetensors"):
        run = tampered(lambda recorded, key=key: placed(recorded, place, {"x": [{key: True}]}))
        assert "could let a checkpoint run code" in error_of(2, "evaluate", run.path)


@pytest.mark.parametrize(
    "text",
    [
        "${oc.create:{_target_: os.system, command: 'touch canary'}}",
        "\\${oc.create:{_target_: os.system, command: 'touch canary'}}",
        "${oc.decode:'{_target_: os.system, command: touch canary}'}",
        "${oc.env:NOBODY,${oc.create:{_target_: os.system}}}",
        "${corpus}", "${oc.select:corpus}", "${oc.dict.values:corpus}", "${now:%Y}", "${hydra:job.name}",
        "${oc.env:NOBODY", "x ${canary:1}",
    ],
)  # fmt: skip
def test_a_recorded_config_computes_nothing(text: str, tampered: Any) -> None:
    run = tampered(lambda recorded: placed(recorded, "corpus.cleaner", text))
    assert "only " in str(refused(ConfigError, resolved, run.config, str(run.path)))
    assert "where: corpus.cleaner" in error_of(2, "evaluate", run.path)
    assert list(Path.cwd().iterdir()) == []


def test_a_value_of_the_environment_is_never_evaluated(
    tampered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "${oc.create:{_target_: os.system, command: 'touch canary'}}")
    run = tampered(lambda recorded: placed(recorded, "corpus.label_names", {0: "${oc.env:WORD}"}))
    corpus = instantiate(resolved(run.config, str(run.path))["corpus"], "corpus")
    assert corpus.label_names == {0: os.environ["WORD"]}
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("verb", ["resume", "reproduce"])
def test_a_recorded_config_gets_a_variable_only_where_it_is_named(
    verb: str, tampered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "sesame")
    names = {"model": "no/${oc.env:A_TOKEN}", "corpus": "${oc.env:OTHER,x}"}
    run = tampered(lambda known: {**known, **{key: {**known[key], "name": names[key]} for key in names}})
    if verb == "resume":
        (run.path / "results.json").unlink()  # what has it is finished
    manifest = run.path / "manifest.json"
    text = manifest.read_text("utf-8").replace("finished", "interrupted" if verb == "resume" else "finished")
    manifest.unlink()  # a link to the run that others look at, too
    manifest.write_text(text, "utf-8")
    given: list[str] = []
    for name, key in (("OTHER", "corpus.name"), ("A_TOKEN", "model.name")):
        said = error_of(2, verb, run.path, *given)
        assert f"its {key} asks for the environment variable {name}," in said
        assert f"fix:   --env {name}" in said
        given += ["--env", name]
    assert resolved(run.config, "")["model"]["name"] == "no/sesame"
    assert manifest.read_text("utf-8") == text


def test_attention_code_from_the_hub_is_refused() -> None:
    node = {"_target_": "transformers.BertForSequenceClassification.from_pretrained", "_partial_": True}
    check_targets({**node, "attn_implementation": "sdpa"})
    error = refused(ConfigError, check_targets, {**node, "attn_implementation": "kernels-community/evil"})
    assert "code from elsewhere" in str(error)


PACKAGE = """
import os, subprocess
from os import system
from subprocess import Popen
from pathlib import Path
import torch
import pytorch_lightning as pl
from transformers import BertForSequenceClassification
from bunryu.data.corpora import Sample
from torch.optim.lr_scheduler import ConstantLR


class Network(BertForSequenceClassification):
    pass


class Plain(torch.optim.SGD):
    def __init__(self, params, lr, **more):
        super().__init__(params, lr)


class Watch(pl.Callback):
    def __init__(self, word):
        self.word = word


class Reviews:
    def __init__(self, name, half):
        self.name, self.half = name, half

    def read(self):
        from bunryu.data.cleaner import NO_CLEANING

        return Sample("own", "test", 1, {0: "no", 1: "yes"}, NO_CLEANING).read()


class Unreadable:
    def __init__(self, name):
        self.name = name


def schedule(optimizer, total_steps, floor):
    return ConstantLR(optimizer, floor, total_steps)


def clear(path):
    Path(path).unlink()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user's package ``my_models``, importable and not yet named."""
    folder = tmp_path / "site/my_models"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE, "utf-8")
    (folder / "broken.py").write_text("x = 1\nimport no_such_thing\n", "utf-8")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delenv(targets.OWN_PACKAGES, raising=False)
    yield monkeypatch
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_models"]:
        del sys.modules[name]


OWN = ["Network", "Network.from_pretrained", "Plain", "Watch", "Reviews"]
IMPORTED = ["system", "Popen", "os.system", "subprocess.Popen", "Path", "Path.unlink"]


@pytest.mark.parametrize(
    ("variable", "name", "allowed"),
    [
        *(("", name, False) for name in OWN),
        *(("another, my_models", name, True) for name in OWN),
        *(("my_models", name, False) for name in IMPORTED),
        ("my_mod,my_models.broken,my", "Watch", False),
        *(("my_models", name, False) for name in ("schedule", "clear")),  # a function is named itself
        ("my_models.schedule", "schedule", True),
        *(("my_models.schedule", name, False) for name in ("clear", "Watch")),
    ],
)
def test_what_the_environment_variable_allows(package: Any, variable: str, name: str, allowed: bool) -> None:
    package.setenv(targets.OWN_PACKAGES, variable)
    if allowed:
        assert targets.resolve(f"my_models.{name}", "x").__qualname__.endswith(name.rpartition(".")[2])
        return
    error = refused(ConfigError, targets.resolve, f"my_models.{name}", "x")
    assert "may not be called" in str(error)
    assert "BUNRYU_ALLOWED_TARGETS" in error.fix
    assert variable or "my_models" not in sys.modules, "not even imported"


@pytest.mark.parametrize(
    "value", ["os", "subprocess", "os.path", "my models", "*", "a-b", "my_models.", "_x"]
)
def test_the_variable_takes_packages_only(package: Any, value: str) -> None:
    package.setenv(targets.OWN_PACKAGES, value)
    error = refused(ConfigError, targets.resolve, "torch.optim.Adam", "x")
    assert error.where == "BUNRYU_ALLOWED_TARGETS"


def test_no_config_can_name_a_package(package: Any, tampered: Any) -> None:
    node = {"_target_": "my_models.Reviews", "name": "own", "half": 1}
    run = tampered(lambda recorded: {**placed(recorded, "corpus", node), targets.OWN_PACKAGES: "my_models"})
    assert "BUNRYU_ALLOWED_TARGETS" in error_of(2, "evaluate", run.path)
    named = "+hydra.job.env_set.BUNRYU_ALLOWED_TARGETS=my_models"
    error_of(2, "train", named, "optimizer._target_=my_models.Plain")
    assert "my_models" not in sys.modules


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("broken.Thing", r"ModuleNotFoundError: No module named 'no_such_thing' \(.*broken\.py:2\)"),
        ("Watsh", "did you mean 'Watch'"),
    ],
)
def test_a_package_that_cannot_be_imported_shows_the_cause(package: Any, name: str, cause: str) -> None:
    package.setenv(targets.OWN_PACKAGES, "my_models")
    assert re.search(cause, str(refused(ConfigError, targets.resolve, f"my_models.{name}", "x")))


def test_a_run_with_classes_of_ones_own(package: Any, train: Train, tmp_path: Path) -> None:
    options = {
        "corpus": "_target_: my_models.Reviews\nname: own\nhalf: 0.5\n",
        "optimizer": "_target_: my_models.Plain\n_partial_: true\nlr: 0.1\nanything: 1\n",
        "scheduler": "_target_: bunryu.training.schedules.Schedule\ninterval: step\nfactory:\n"
        "  _target_: my_models.schedule\n  _partial_: true\n  floor: 0.5\n",
        "callbacks": "defaults: [default]\nmine: {_target_: my_models.Watch, word: hello}\n",
    }
    for group, text in options.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(text, "utf-8")
    package.setenv("BUNRYU_CONFIG_DIR", str(tmp_path / "conf"))
    package.setenv(targets.OWN_PACKAGES, "my_models,my_models.schedule")
    run = train(
        "epochs=1", "limit_rows=40", "model.network._target_=my_models.Network",
        *(f"{group}=own" for group in options),
    )  # fmt: skip
    assert run.manifest["status"] == "finished"
    assert run.manifest["corpus"]["labels"] == ["no", "yes"]
    assert cli.run(["evaluate", str(run.path)]) == 0
    package.delenv(targets.OWN_PACKAGES)
    error_of(2, "evaluate", run.path, "--name", "again")


def test_an_own_corpus_needs_read(package: Any) -> None:
    package.setenv(targets.OWN_PACKAGES, "my_models")
    error = refused(ConfigError, instantiate, {"_target_": "my_models.Unreadable", "name": "x"}, "corpus")
    assert "has no read()" in str(error)


@pytest.mark.parametrize(
    ("where", "node"),
    [
        ("callbacks.x._target_", "callbacks: {x: {_target_: pathlib.Path.touch, _args_: [canary]}}"),
        ("callbacks.x", "callbacks: {x: '${evil}'}"),
        ("launcher._target_", "launcher: {_target_: pathlib.Path.cwd}"),
        ("launcher.x.0._target_", "launcher: {x: [{_target_: pathlib.Path.touch, _args_: [canary]}]}"),
        ("sweeper.x._target_", "sweeper: {x: '${evil}'}"),
        ("job_logging.handlers", "job_logging: {handlers: '${hydra.launcher.x}'}\n  launcher: {x: {}}"),
        ("job_logging.handlers.console.()", "job_logging: {handlers: {console: {(): os.abort}}}"),
        ("job_logging.handlers.f.class", "job_logging: {handlers: {f: {class: logging.FileHandler}}}"),
        ("hydra_logging.handlers.q.class", "hydra_logging: {handlers: {q: {class: x.QueueHandler}}}"),
        ("hydra_logging.root.handlers", "hydra_logging: {root: {handlers: []}}"),
        ("job.env_set.GIT_CONFIG_COUNT", "job: {env_set: {GIT_CONFIG_COUNT: '1'}}"),
        ("job.env_set.PATH", "job: {env_copy: [PATH]}"),
        ("job.chdir", "job: {chdir: true}"),
        ("run.dir", "run: {dir: x}"),
        ("sweep.dir", "sweep: {dir: '${output_root}/x'}"),
        ("output_subdir", "output_subdir: .hydra"),
        ("env.x", "env: {x: 1}"),
    ],
)
def test_hydras_own_node_is_as_it_ships(
    where: str, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = tmp_path / "conf/experiment/evil.yaml"
    option.parent.mkdir(parents=True)
    evil = "evil: {_target_: pathlib.Path.touch, _args_: [canary]}"
    option.write_text(f"# @package _global_\n{evil}\nhydra:\n  {node}\n", "utf-8")
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path / "conf"))
    assert f"\n  where: hydra.{where}\n" in error_of(2, "train", "experiment=evil", "epochs=-1")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "submitit_slurm"])
def test_what_a_sweep_needs_of_hydra_may_be_set(launcher: str) -> None:
    given = [f"hydra/launcher={launcher}", "+hydra.launcher.setup=[module load x]", "hydra.verbose=true",
             "hydra.mode=MULTIRUN", "hydra.sweeper.strategy=optuna", "sweep=optuna_small"]  # fmt: skip
    with composing():
        hydra = compose("train", given, return_hydra_config=True).hydra
    assert (hydra.launcher.setup, hydra.sweeper.strategy) == (["module load x"], "optuna")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: [*a, *a]\n", "a: &a [*a]\n", "a: !!python/object/apply:os.system ['touch canary']\n",
        "a: !!python/name:os.system\n", "a: [" + "[" * 2000 + "\n", "[1, 2]\n", "", "a: \x00\n",
    ],
)  # fmt: skip
def test_a_recorded_config_is_plain_yaml(text: str, tampered: Any) -> None:
    assert "config.yaml is damaged" in error_of(1, "evaluate", tampered(text).path)
    assert list(Path.cwd().iterdir()) == []
