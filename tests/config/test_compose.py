"""Every shipped option composes and fits; what does not fit is refused with its fix and leaves nothing."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from bunryu import cli
from bunryu.config import overrides, schema
from bunryu.config.instantiate import check_targets, instantiate
from bunryu.config.record import to_recorded
from bunryu.config.targets import resolve
from bunryu.errors import ConfigError
from helpers.composing import composed

CONF = Path(__file__).parents[2] / "conf"
GROUPS = [
    "model", "corpus", "accelerator", "optimizer", "scheduler", "callbacks", "logger", "experiment", "debug",
]  # fmt: skip
OPTIONS = [
    (group, path.stem)
    for group in [*GROUPS, "corpus/cleaner"]
    for path in sorted((CONF / group).glob("*.yaml"))
]
NEEDED = {  # values that have no default, and libraries that may be missing here
    "pretrained": ["model.name=somewhere"],
    "table": ["corpus.train=rows.csv"],
}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What ``bunryu train`` says when it refuses with exit code 2."""
    assert cli.run(["train", *arguments]) == 2
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_options_are_those_of_the_contract() -> None:
    by_group: dict[str, list[str]] = {}
    for group, option in OPTIONS:
        by_group.setdefault(group, []).append(option)
    assert by_group == {
        "model": ["kcbert_base", "kcbert_large", "pretrained", "small", "tiny"],
        "corpus": ["nsmc", "sample", "table"],
        "corpus/cleaner": ["kcbert", "none"],
        "accelerator": ["auto", "cpu", "gpu", "mps", "tpu"],
        "optimizer": ["adam", "adamw", "sgd"],
        "scheduler": ["constant", "cosine_warmup", "exponential", "linear_warmup"],
        "callbacks": ["default", "early_stopping"],
        "logger": ["mlflow", "none", "tensorboard", "wandb"],
        "experiment": ["nsmc_kcbert", "nsmc_small"],
        "debug": ["fast_dev_run", "limit", "overfit", "profiler"],
    }


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_passes_the_checks_and_binds(group: str, option: str) -> None:
    config = composed(f"{group}={option}", *NEEDED.get(option, []))
    schema.check_values(config)
    nodes = to_recorded(config)
    check_targets(nodes)
    targets = [key for key in schema.keys_of(OmegaConf.create(nodes)) if key.endswith("_target_")]
    assert len(targets) >= 8


@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("experiment", "debug")])
def test_options_of_a_group_have_the_same_keys_where_the_recipe_reads_them(group: str) -> None:
    needed = {"model": {"name", "lr", "positions"}, "corpus": {"name", "cleaner", "validation", "split_seed"},
              "accelerator": {"name", "devices", "strategy", "precision"}, "optimizer": {"_target_", "lr"},
              "scheduler": {"interval", "factory"}}.get(group, set())  # fmt: skip
    for option in (path.stem for path in (CONF / group).glob("*.yaml")):
        assert needed <= set(composed(f"{group}={option}")[group]), option


def test_no_key_of_the_shipped_tables_is_dead() -> None:
    keys = set()
    for group, option in OPTIONS:
        keys |= set(schema.keys_of(composed(f"{group}={option}")))
    tables = [schema.RANGES, schema.CHOICES, schema.NULL_TYPES, schema.WIDER_TYPES]
    assert {key for table in tables for key in table} - keys == set()


def test_interpolations_are_one_hop_and_name_no_resolver() -> None:
    for path in CONF.rglob("*.yaml"):
        for line in path.read_text("utf-8").splitlines():
            code = line.split("#")[0]
            if "${" in code and "hydra" not in str(path.relative_to(CONF)):
                target = code.split("${")[1].split("}")[0]
                value = OmegaConf.to_container(composed(), resolve=False)
                for part in target.split("."):
                    value = value[part]  # type: ignore[index, call-overload]
                assert not str(value).startswith("${"), f"{path.name}: {line}"


@pytest.mark.parametrize(
    ("override", "where", "fix"),
    [
        ("optimzer.lr=1", "optimzer.lr", "optimizer.lr"),
        ("modle=tiny", "modle", "model"),
        ("optimizer.weight_decy=0.1", "optimizer.weight_decy", "optimizer.weight_decay"),
        ("model.architecture.hiden_size=3", "model.architecture.hiden_size", "architecture.hidden_size"),
        ("+epoch=3", "epoch", "epochs"),
        ("+typo=1", "typo", ""),
        ("model=tinny", "model", "model=tiny"),
        ("optimizer=adamv", "optimizer", "optimizer=adam"),
        ("optimizer.lr=abc", "optimizer.lr", "optimizer.lr=0.001"),
        ("optimizer.lr=-1", "optimizer.lr", "at least 0"),
        ("epochs=-2", "epochs", "at least 1"),
        ("epochs=2.5", "epochs", "epochs=3"),
        ("epochs=many", "epochs", "epochs=3"),
        ("epochs=true", "epochs", "epochs=3"),
        ("trainer.max_epochs=-2", "trainer.max_epochs", "at least 1"),
        ("seed=-1", "seed", "from 0"),
        ("overwrite_cache=3", "overwrite_cache", "overwrite_cache=False"),
        ("batching=sorted", "batching", "bucketed or random"),
        ("padding=longes", "padding", "longest or max_length"),
        ("monitor=min val/acuracy", "monitor", "max val/accuracy"),
        ("monitor=val/loss", "monitor", "min val/loss"),
        ("monitor=max val/loss", "monitor", "min val/loss"),
        ("scheduler.interval=never", "scheduler.interval", "epoch or step"),
        ("corpus.cleaner=kcbert", "corpus.cleaner", "corpus/cleaner=<option>"),
        ("corpus.label_names=null", "corpus.label_names", "corpus.label_names.<key>"),
        ("trainer=null", "trainer", "trainer=<option>"),
        ("callbacks=null", "the command line", "--help lists them"),
        ("corpus.label_names={음식: food}", "corpus.label_names", "--config-dir"),
        ("optimizer=adamW", "optimizer", "optimizer=adamw"),
        ("corpus.validation=1.5", "corpus.validation", "a share between 0 and 1"),
        ("foo", "foo", "key=value"),
        ("max_seq_length=301", "max_seq_length", "300"),
        ("corpus=table", "corpus.train", "corpus.train="),
        ("model=pretrained", "model.name", "model.name="),
        ("limit_rows=0", "limit_rows", "at least 1"),
        ("epochs=1,2", "epochs", "-m"),
        ("accelerator.devices=0", "accelerator.devices", "a value at least 1"),
        ("~trainer.log_every_n_steps", "~trainer.log_every_n_steps", "trainer.log_every_n_steps="),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_fix_before_torch(
    override: str, where: str, fix: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = refusal(capsys, override)
    assert f"where: {where}" in said
    assert fix in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "where", "fix"),
    [
        ("+model.architecture.hiden_size=3", "model.architecture.hiden_size", "hidden_size"),
        ("+optimizer.lrr=3", "optimizer.lrr", "'lr'"),
        ("+trainer.max_epoch=3", "trainer.max_epoch", "max_epochs"),
        ("+scheduler.factory.gama=3", "scheduler.factory.gama", "gamma"),
        ("+callbacks.best_checkpoint.monitr=x", "callbacks.best_checkpoint.monitr", "monitor"),
        ("+corpus.root=x", "corpus.root", "validation"),
        ("+trainer.logger=false", "trainer.logger", "logger="),
        ("+datamodule.seed=3", "datamodule.seed", "seed="),
        (
            "+model.architecture.max_position_embeddings=64",
            "model.architecture.max_position_embeddings",
            "model.positions",
        ),
    ],
)
def test_an_added_key_is_bound_to_the_signature(
    override: str, where: str, fix: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = refusal(capsys, override)
    assert f"where: {where}" in said
    assert fix in said
    assert list(tmp_path.iterdir()) == []


def test_an_added_key_that_the_signature_takes_passes() -> None:
    check_targets(
        to_recorded(composed("+model.architecture.layer_norm_eps=1e-6", "+trainer.max_time=00:00:10:00"))
    )


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "os.system",
        "builtins.eval",
        "pathlib.Path.unlink",
        "torch.optim.adam.torch.os._exit",
        "transformers.utils.import_utils.os.system",
        "transformers.utils.import_utils.os.getcwd",
        "torch.hub.load",
        "torch.nn.Linear",
        "bunryu.cli.run",
        "bunryu.system.files.write_atomically",
        "bunryu.config.instantiate.instantiate",
        "transformers.pipeline",
        "transformers.AutoModelForSequenceClassification.register",
        "subprocess.Popen",
        "bunryu.runs.provenance.subprocess.Popen",
        "hydra.utils.call",
        "torch.utils.model_dump.__main__.main",
    ],
)
def test_a_target_is_judged_by_what_it_resolves_to(
    target: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def canary(*_: Any, **__: Any) -> None:
        raise AssertionError("it was executed")

    for name in ("os.system", "os._exit", "torch.load", "builtins.eval"):
        monkeypatch.setattr(name, canary)
    with pytest.raises(ConfigError, match="may not be called"):
        instantiate({"_target_": target})
    said = refusal(capsys, f"optimizer._target_={target}")
    assert f"'{target}' may not be called from a config" in said
    assert "where: optimizer._target_" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["trust_remote_code", "weights_only", "use_safetensors"])
@pytest.mark.parametrize("node", ["", "model.", "model.network.", "trainer."])
def test_loading_options_are_refused_at_any_depth(
    key: str, node: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"where: {node}{key}" in refusal(capsys, f"+{node}{key}=true")


def test_loading_options_in_a_run_directorys_config_are_refused_too() -> None:
    with pytest.raises(ConfigError, match="could let a checkpoint run code"):
        instantiate(
            {
                "_target_": "transformers.AutoTokenizer.from_pretrained",
                "_partial_": True,
                "trust_remote_code": True,
            }
        )


def test_a_target_that_cannot_be_imported_shows_the_cause() -> None:
    with pytest.raises(ConfigError, match=r"torch\.optim\.AdmW") as caught:
        resolve("torch.optim.AdmW", "optimizer._target_")
    assert caught.value.fix == "did you mean 'AdamW'?"


def test_plain_resolves_all_but_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "secret")
    config = OmegaConf.create(
        {
            "a": "${oc.env:WHO}",
            "b": "${a}",
            "c": "x ${b}",
            "d": "${oc.env:NOBODY,fallback}",
            "e": 1,
            "f": "${e}",
        }
    )
    assert to_recorded(config) == {
        "a": "${oc.env:WHO}", "b": "${oc.env:WHO}", "c": "x ${oc.env:WHO}", "d": "${oc.env:NOBODY,fallback}",
        "e": 1, "f": 1,
    }  # fmt: skip
    assert config.a == "secret", "the resolver itself is back"


@pytest.mark.parametrize(
    "value",
    ["/drive/My Drive/실험", "/drive/My Drive (1)", "it's", "a'b\\", "(", "a=b", "{x", "x}", "a\\'b", "[z]]"],
)
def test_values_reach_the_config_as_the_shell_passed_them(value: str) -> None:
    assert composed(overrides.quote(f"output_root={value}")).output_root == value


def test_a_number_from_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EP", "2")
    said = refusal(capsys, "epochs=${oc.decode:${oc.env:EP}}")
    assert "where: epochs" in said
    assert "epochs=$NAME" in said, "the shell may fill it in; the value itself is not shown"


def test_the_recipe_fills_in_what_it_says_it_fills_in() -> None:
    from bunryu.config.instantiate import FILLED_IN

    config = to_recorded(composed())
    for node, keys in FILLED_IN.items():
        target = OmegaConf.select(OmegaConf.create(config), node)["_target_"]
        names = set(inspect.signature(resolve(target, node)).parameters)
        assert set(keys) <= names, node


@pytest.mark.parametrize("override", ["--config-dir=/x", "--cfg=job", "-cp=x"])
@pytest.mark.parametrize("prefix", ["", "-"])
def test_flags_are_left_alone(override: str, prefix: str) -> None:
    assert overrides.quote(f"{prefix}{override}") == f"{prefix}{override}"


@pytest.mark.parametrize("override", ["model=tiny", "seed=1,2", "+a.b=[1,2]", "~logger", "x={a: 1}", "y='q'"])
def test_what_hydra_understands_is_left_alone(override: str) -> None:
    assert overrides.quote(override) == override


def test_a_mapping_to_hangul_names_needs_no_quotes() -> None:
    override = overrides.quote("corpus.label_names={1: 긍정, 0: 아주 부정}")
    assert composed("corpus=nsmc", override).corpus.label_names == {0: "아주 부정", 1: "긍정"}


def test_a_users_config_directory_adds_options_to_every_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    for group in GROUPS:
        (own / group).mkdir(parents=True)
        body = "# @package _global_\nseed: 99\n" if group in ("experiment", "debug") else "mine: 1\n"
        (own / group / "mine.yaml").write_text(body, "utf-8")
    arguments = [f"{group}=mine" for group in GROUPS]
    assert cli.run(["train", "--config-dir", str(own), "--cfg", "job", *arguments]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["seed"] == 99
    assert [group for group in GROUPS if shown.get(group) == {"mine": 1}] == [
        g for g in GROUPS if g not in ("experiment", "debug")
    ]


def test_the_environment_names_a_config_directory_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own/optimizer").mkdir(parents=True)
    (tmp_path / "own/optimizer/mine.yaml").write_text("_target_: torch.optim.Adagrad\nlr: 0.5\n", "utf-8")
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path / "own"))
    assert cli.run(["train", "--cfg", "job", "-p", "optimizer", "optimizer=mine"]) == 0
    assert "torch.optim.Adagrad" in capsys.readouterr().out
