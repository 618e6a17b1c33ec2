"""Every part of Lightning and torch that a config may name trains for two steps, or is refused before any."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml

from bunryu import cli
from bunryu.config.record import to_recorded
from bunryu.runs.run import Run
from bunryu.training import early_checks
from helpers.composing import composed
from helpers.refusing import error_of
from helpers.training import Train, recorded

SMALLEST = [
    "model.vocabulary_size=300", "model.architecture.hidden_size=8", "model.architecture.intermediate_size=8",
    "model.architecture.num_attention_heads=1", "model.architecture.num_hidden_layers=1",
    "limit_rows=16", "batch_size=8", "epochs=1", "logger=none", "trainer.log_every_n_steps=1",
]  # fmt: skip
ARGUMENTS: dict[str, dict[str, Any]] = {
    "OneCycleLR": {"max_lr": 1e-3, "cycle_momentum": False},
    "CosineAnnealingLR": {"T_max": 2},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 1e-4, "max_lr": 1e-3, "cycle_momentum": False},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": [1]},
    "StepLR": {"step_size": 1},
    "EarlyStopping": {"monitor": "val/loss"},
    "Timer": {"duration": "00:01:00:00"},
}
# Each with a part of the reason; LearningRateMonitor and ReduceLROnPlateau are not among them.
REFUSED = {
    "LBFGS": "LBFGS doesn't support per-parameter options",
    "Muon": "Muon only supports 2D parameters",
    "SparseAdam": "SparseAdam does not support dense gradients",
    "ChainedScheduler": "where: scheduler",
    "LambdaLR": "missing 1 required positional argument: 'lr_lambda'",
    "MultiplicativeLR": "missing 1 required positional argument: 'lr_lambda'",
    "SequentialLR": "missing 2 required positional arguments: 'schedulers' and 'milestones'",
    "BatchSizeFinder": "fix:   batch_size=auto",
    "LearningRateFinder": "fix:   a sweep: bunryu train -m optimizer.lr=",
    "GradientAccumulationScheduler": "fix:   trainer.accumulate_grad_batches=",
    "OnExceptionCheckpoint": "last.ckpt is always kept",
    "SpikeDetection": "a loss that is not finite ends the run",
    "ThroughputMonitor": "needs 'batch_size_fn'",
    "XLAProfiler": "fix:   trainer.profiler=simple",
    **dict.fromkeys(
        ("BackboneFinetuning", "BaseFinetuning", "ModelPruning", "StochasticWeightAveraging",
         "EMAWeightAveraging", "WeightAveraging"), "or resumes to the bit",
    ),
    **dict.fromkeys(("ProgressBar", "RichProgressBar", "TQDMProgressBar"), "multiple progress bar callbacks"),
    **dict.fromkeys(("CometLogger", "LitLogger", "MLFlowLogger", "WandbLogger"), "Requirement '"),
}  # fmt: skip
ELSEWHERE = ("TensorBoardLogger", "ReduceLROnPlateau")  # the default; and below


def parts() -> dict[str, list[str]]:
    """The dotted names of the classes that the allow-list names a family of, by their group."""
    schedules = torch.optim.lr_scheduler
    families: list[tuple[str, Any, Any]] = [
        ("optimizer", torch.optim, torch.optim.Optimizer),
        ("scheduler", schedules, schedules.LRScheduler),
        ("callbacks", pl.callbacks, pl.Callback),
        ("logger", pl.loggers, pl.loggers.Logger),
        ("profiler", pl.profilers, pl.profilers.Profiler),
    ]
    found: dict[str, list[str]] = {}
    for group, module, family in families:
        for name in getattr(module, "__all__", dir(module)):
            part = getattr(module, name)
            known = name.startswith("_") or part is family or name in ELSEWHERE
            if inspect.isclass(part) and issubclass(part, family) and not known:
                found.setdefault(group, []).append(f"{module.__name__}.{name}")
    return found


def reason(target: str) -> str | None:
    return REFUSED.get(target.rpartition(".")[2])


def write_option(folder: Path, group: str, target: str) -> str:
    """An option of a user's own with that part in it; the override that chooses it."""
    node = {"_target_": target, **ARGUMENTS.get(target.rpartition(".")[2], {})}
    schedule = {"_target_": "bunryu.training.schedules.Schedule", "interval": "step"}
    contents: dict[str, Any] = {
        "optimizer": {**node, "_partial_": True, "lr": 1e-3},
        "scheduler": {**schedule, "factory": {**node, "_partial_": True}},
        "callbacks": {"defaults": ["default"], "part": node},
        "logger": {"part": {**node, "_partial_": True}},
        "profiler": {"trainer": {"profiler": node}},
    }
    option = "debug" if group == "profiler" else group
    (folder / option).mkdir(parents=True)
    package = "# @package _global_\n" if group == "profiler" else ""
    (folder / option / "part.yaml").write_text(package + yaml.safe_dump(contents[group]), "utf-8")
    return f"{option}=part"


def command(folder: Path, chosen: Mapping[str, str]) -> list[str]:
    """Trains with these parts, one of a group."""
    options = [write_option(folder / "conf", group, target) for group, target in chosen.items()]
    return ["train", f"--config-dir={folder / 'conf'}", f"output_root={folder / 'out'}", *SMALLEST, *options]


def together() -> Iterator[dict[str, str]]:
    """The parts that train, one of each group at a time."""
    trained = {group: [part for part in found if not reason(part)] for group, found in parts().items()}
    for chosen in zip_longest(*trained.values()):
        yield {group: part for group, part in zip(trained, chosen, strict=True) if part}


@pytest.mark.filterwarnings("ignore:The PyTorch ?Profiler")
@pytest.mark.parametrize(
    "chosen",
    list(together()),
    ids=lambda chosen: "+".join(part.rpartition(".")[2] for part in chosen.values()),
)
def test_a_part_trains_for_two_steps(chosen: dict[str, str], tmp_path: Path) -> None:
    assert cli.run(command(tmp_path, chosen)) == 0
    (run,) = (tmp_path / "out").glob("*/*")
    assert len(recorded(Run(run), "train/loss")) == 2


@pytest.mark.parametrize(
    ("group", "target"),
    [(group, part) for group, found in parts().items() for part in found if reason(part)],
)
def test_or_is_refused_before_any(group: str, target: str, tmp_path: Path) -> None:
    assert str(reason(target)) in error_of(2, *command(tmp_path, {group: target}))
    assert not list(tmp_path.glob("out/*/*/checkpoints"))


def test_a_plateau_s_rate_falls_after_an_epoch_that_did_not_improve(train: Train) -> None:
    run = train("scheduler=plateau", "monitor=max val/accuracy", "epochs=4", "optimizer.lr=0.01")
    figures, rates = recorded(run, "val/accuracy"), recorded(run, "lr")[::6]  # five steps and a mean an epoch
    expected, best = [0.01], -1.0
    for figure in figures[:-1]:
        expected.append(expected[-1] if figure > best else expected[-1] / 10)
        best = max(best, figure)
    assert rates == pytest.approx(expected)
    assert rates[-1] < rates[0]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+trainer.limit_val_batches=0"], "where: trainer.limit_val_batches=0\n  fix:   ~trainer.limit_val"),
        (["+trainer.limit_test_batches=0"], "where: trainer.limit_test_batches=0"),
        (["+trainer.check_val_every_n_epoch=3"], "no epoch would be validated"),
        (["scheduler=plateau", "scheduler.interval=step"], "fix:   scheduler=plateau"),
        (["+scheduler.monitor=min val/loss"], "ReduceLROnPlateau alone has a monitor"),
        (["scheduler=plateau", "scheduler.monitor=max val/loss"], "would keep the worst"),
    ],
)
def test_a_run_that_could_choose_no_checkpoint_or_rate_is_refused_and_leaves_nothing(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert said in error_of(2, "train", f"output_root={out}", "epochs=2", *overrides)
    assert not out.exists()


def test_an_argument_for_another_device_is_no_problem_of_this_one() -> None:
    config = to_recorded(composed("+optimizer.capturable=true"))
    assert early_checks.optimizer_and_schedule(config)[1].interval == "epoch"


def test_without_a_progress_bar(train: Train) -> None:
    assert train("trainer.enable_progress_bar=false", "epochs=1").manifest["status"] == "finished"
