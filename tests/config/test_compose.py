"""Every shipped option composes and fits; what does not fit is refused with its fix and leaves nothing."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from bunryu import cli
from bunryu.commands.train import main_choices
from bunryu.config import overrides, schema
from bunryu.config.checks import problems
from bunryu.config.instantiate import FILLED_IN, check_targets, instantiate
from bunryu.config.record import to_recorded
from bunryu.config.targets import resolve
from bunryu.data.cleaner import Cleaner
from bunryu.errors import ConfigError
from bunryu.keys import keys_of, value_at
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


def plain(config: Any) -> Any:
    """A composed config as it is written."""
    return OmegaConf.to_container(config)


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
        "scheduler": ["constant", "cosine_warmup", "exponential", "linear_warmup", "plateau"],
        "callbacks": ["default", "early_stopping"],
        "logger": ["mlflow", "none", "tensorboard", "wandb"],
        "experiment": ["nsmc_kcbert", "nsmc_small"],
        "debug": ["fast_dev_run", "limit", "overfit", "profiler"],
    }


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_passes_the_checks_and_binds(group: str, option: str) -> None:
    config = composed(f"{group}={option}", *NEEDED.get(option, []))
    assert list(problems(config, composed(f"{group}={option}"))) == []
    nodes = to_recorded(config)
    check_targets(nodes)
    assert len([key for key in keys_of(nodes) if key.endswith("_target_")]) >= 8


@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("experiment", "debug")])
def test_options_of_a_group_have_the_same_keys_where_the_recipe_reads_them(group: str) -> None:
    needed = {"model": {"name", "lr", "positions"}, "corpus": {"name", "cleaner", "validation", "split_seed"},
              "accelerator": {"name", "devices", "strategy", "precision"}, "optimizer": {"_target_", "lr"},
              "scheduler": {"interval", "factory"}}.get(group, set())  # fmt: skip
    for option in (path.stem for path in (CONF / group).glob("*.yaml")):
        assert needed <= set(composed(f"{group}={option}")[group]), option


def test_no_key_of_the_table_is_dead() -> None:
    keys = {key for group, option in OPTIONS for key in keys_of(plain(composed(f"{group}={option}")))}
    assert set(schema.KEYS) - keys == set()


def test_interpolations_are_one_hop_and_name_no_resolver() -> None:
    for path in CONF.rglob("*.yaml"):
        for line in path.read_text("utf-8").splitlines():
            code = line.split("#")[0]
            if "${" in code and "hydra" not in str(path.relative_to(CONF)):
                target = code.split("${")[1].split("}")[0]
                assert not str(value_at(plain(composed()), target, "${")).startswith("${"), f"{path}: {line}"


TABLE = "corpus=table corpus.train=x"


@pytest.mark.parametrize(
    ("override", "where", "fix"),
    [
        ("optimzer.lr=1", "optimzer.lr", "optimizer.lr"),
        ("modle=tiny", "modle", "model"),
        ("optimizer.weight_decy=0.1", "optimizer.weight_decy", "optimizer.weight_decay"),
        ("+epoch=3", "epoch", "epochs"),
        ("+typo=1", "typo", ""),
        ("model=tinny", "model", "model=tiny"),
        ("optimizer.lr=abc", "optimizer.lr", "optimizer.lr=0.001"),
        ("optimizer.lr=-1", "optimizer.lr", "at least 0"),
        ("epochs=-2", "epochs", "at least 1"),
        ("epochs=many", "epochs", "epochs=3"),
        ("seed=-1", "seed", "from 0"),
        ("overwrite_cache=3", "overwrite_cache", "overwrite_cache=false"),
        ("batching=sorted", "batching", "bucketed or random"),
        ("padding=longes", "padding", "longest or max_length"),
        ("monitor=min val/acuracy", "monitor", "max val/accuracy"),
        ("monitor=val/loss", "monitor", "min val/loss"),
        ("scheduler.interval=never", "scheduler.interval", "epoch or step"),
        ("corpus.cleaner=kcbert", "corpus.cleaner", "corpus/cleaner=<option>"),
        ("corpus.label_names=null", "corpus.label_names", "corpus.label_names.<key>"),
        ("trainer=null", "trainer", "trainer=<option>"),
        ("callbacks=null", "the command line", "--help lists them"),
        ("corpus.label_names={음식: food}", "corpus.label_names", "--config-dir"),
        (f"{TABLE} corpus.label_names={{true: 긍정}}", "corpus.label_names", "'yes'"),
        ("corpus.label_names={1: 010, 0: 1}", "corpus.label_names", "'1'"),
        (f"{TABLE} corpus.label_names={{1.0: 긍정}}", "corpus.label_names", "'1.0'"),
        (f"{TABLE} corpus.label_column=null", "corpus.label_column", "corpus.label_column=label\n"),
        ("corpus.validation=1.5", "corpus.validation", "a share between 0 and 1"),
        ("foo", "foo", "key=value"),
        ("+corpus.label_names.010=x", "+corpus.label_names.010=x", "key=value"),
        ("max_seq_length=301", "max_seq_length", "300"),
        ("corpus=table", "corpus.train", "corpus.train="),
        ("model=pretrained", "model.name", "model.name="),
        ("epochs=1,2", "epochs", "-m"),
        ("accelerator.devices=0", "accelerator.devices", "a value at least 1"),
        ("~trainer.log_every_n_steps", "~trainer.log_every_n_steps", "trainer.log_every_n_steps="),
        ("optimizer.lr=inf", "optimizer.lr", "at least 0"),
        ("scheduler=linear_warmup scheduler.factory.warmup=2", "scheduler.factory.warmup", "from 0 to 1"),
        ("keep_checkpoints=some", "keep_checkpoints", "all or best or none"),
        ("batch_size=some", "batch_size", "batch_size=auto, or a number"),
        ("callbacks.best_checkpoint.monitor=min val/acuracy", "callbacks.best_checkpoint.monitor", "max val"),
        ("epochs=${epoch}", "epochs", "epoch=<value>"),
        ("epochs=${foo:1}", "epochs", "another key"),
        ("cache_dir=${oc.env:NOBODY_SET_THIS}", "cache_dir", "export NOBODY_SET_THIS"),
        ("++seed.a=1", "seed", "seed=7"),
        ("++overwrite_cache={_target_: bunryu.data.cleaner.Cleaner}", "overwrite_cache", "=false"),
        ("task._partial_=false", "task._partial_", "task._partial_=true"),
        ("~callbacks.progress_bar._target_", "~callbacks.progress_bar._target_", "=<value>"),
        ("~limit_rows", "~limit_rows", "limit_rows=<value>"),
        ("~zzz", "zzz", "--cfg job"),
        ("~epochs=4", "~epochs", "~epochs"),
        ("~model=small", "model", "model=<option>"),
        ("++logger=none", "logger", "logger=<option>"),
        ("epochs={null: 1}", "epochs", "keys are texts"),
        ("model={name: tiny}", "model", "model=<option>"),
        # keys that a signature does not take, classes out of place, and what no config may name
        ("+model.architecture.hiden_size=3", "model.architecture.hiden_size", "hidden_size"),
        ("+optimizer.lrr=3", "optimizer.lrr", "'lr'"),
        ("+trainer.max_epoch=3", "trainer.max_epoch", "max_epochs"),
        ("+corpus.root=x", "corpus.root", "validation"),
        ("+corpus._recursive_=false", "corpus._recursive_", "validation"),
        ("+trainer.logger=false", "trainer.logger", "logger="),
        ("+datamodule.seed=3", "datamodule.seed", "seed="),
        ("+model.architecture.max_position_embeddings=64", "model.architecture.max_position_embeddings",
         "model.positions"),
        ("optimizer._partial_=true ~callbacks.best_checkpoint.monitor", "callbacks.best_checkpoint",
         "+callbacks.best_checkpoint.monitor="),
        ("callbacks.progress_bar._target_=bunryu.errors.ConfigError", "callbacks.progress_bar._target_",
         "on_fit_start"),
        ("corpus.cleaner._target_=bunryu.system.files.Path", "corpus.cleaner._target_", "a class of bunryu"),
        ("optimizer._target_=os.system", "optimizer._target_", "may not be called from a config"),
        ("--experimental-rerun=x", "--experimental-rerun=x", "bunryu reproduce <run>"),
        ("+trust_remote_code=true", "trust_remote_code", "could let a checkpoint run code"),
        ("+model.network.weights_only=true", "model.network.weights_only", "could let a checkpoint run code"),
        ("+trainer.use_safetensors=true", "trainer.use_safetensors", "could let a checkpoint run code"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_fix_and_leaves_nothing(
    override: str, where: str, fix: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["train", *re.split(r" (?=~|scheduler|corpus\.)", override)]) == 2
    said = capsys.readouterr().err
    assert f"where: {where}\n" in said
    assert fix in said
    assert "Traceback" not in said
    assert "Error executing job" not in said
    assert list(tmp_path.iterdir()) == []


def test_every_problem_is_named_once_and_what_follows_from_it_is_not() -> None:
    config = composed(
        "epochs=-2",
        "seed=x",
        "optimizer.lr=${nope}",
        "+typo.a=1",
        "batching=x",
        "++limit_rows={a: 1}",
        "padding=3",
    )
    found = [problem.where for problem in problems(config, composed())]
    assert found == ["optimizer.lr", "epochs", "batching", "padding", "limit_rows", "typo", "seed"]


def test_an_added_key_that_the_signature_takes_passes() -> None:
    more = ["+model.architecture.layer_norm_eps=1e-6", "+trainer.max_time=00:00:10:00"]
    check_targets(to_recorded(composed(*more)))
    padded = ["model=pretrained", "model.name=x", "+model.tokenizer_factory.pad_token='[UNK]'"]
    assert (
        value_at(check_targets(to_recorded(composed(*padded))), "model.tokenizer_factory.pad_token")
        == "[UNK]"
    )


@pytest.mark.parametrize(
    "target",
    [
        "builtins.eval",
        "pathlib.Path.unlink",
        "torch.optim.adam.torch.os._exit",
        "transformers.utils.import_utils.os.getcwd",
        "torch.hub.load",
        "torch.nn.Linear",
        "bunryu.cli.run",
        "bunryu.system.files.write_atomically",
        "transformers.pipeline",
        "transformers.AutoModelForSequenceClassification.register",
        "subprocess.Popen",
        "bunryu.runs.provenance.subprocess.Popen",
        "bunryu.config.targets.importlib.no_such_module",  # not even looked for
        "hydra.utils.call",
        "torch.utils.model_dump.__main__.main",
    ],
)
def test_a_target_is_judged_by_what_it_resolves_to(target: str) -> None:
    with pytest.raises(ConfigError, match="may not be called") as caught:
        instantiate({"_target_": target})
    assert caught.value.where == "_target_"


def test_a_judged_node_is_made_as_it_was_judged_and_a_changed_copy_is_judged_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = {"_target_": "bunryu.data.cleaner.Cleaner", "_partial_": True}
    judged = check_targets({"corpus": {"cleaner": node}})["corpus"]["cleaner"]
    monkeypatch.setattr("bunryu.config.instantiate.resolve", lambda *_: pytest.fail("it is judged again"))
    assert instantiate(judged).func is Cleaner
    monkeypatch.undo()
    for change, what in (
        ({"_target_": "os.system"}, "may not be called"),
        ({"allowed": [{"trust_remote_code": True}]}, "could let a checkpoint run code"),
        ({"typo": 1}, "takes no 'typo'"),
    ):
        with pytest.raises(ConfigError, match=what):
            instantiate({**judged, **change})


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


def test_the_lines_of_a_config_that_are_printed_can_be_typed() -> None:
    config = to_recorded(composed())
    shown = re.findall(r"  (\S+=\S.*?)(?=  |$)", main_choices(config), re.MULTILINE)
    assert {"limit_rows=null", "optimizer.lr=0.001", "monitor=min val/loss"} < set(shown)
    assert to_recorded(composed(*map(overrides.quote, shown))) == config


def test_the_recipe_fills_in_what_it_says_it_fills_in() -> None:
    config = to_recorded(composed())
    for key in FILLED_IN:
        node, _, name = key.rpartition(".")
        target = value_at(config, f"{node}._target_")
        assert name in inspect.signature(resolve(target, node)).parameters, key


@pytest.mark.parametrize(
    "override",
    [
        "--config-dir=/x",
        "--cfg=job",
        "-cp=x",
        "model=tiny",
        "seed=1,2",
        "+a.b=[1,2]",
        "~logger",
        "x={a: 1}",
        "y='q'",
    ],
)
def test_flags_and_what_hydra_understands_are_left_alone(override: str) -> None:
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
