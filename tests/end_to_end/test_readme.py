"""The README's commands are run as they stand there; the few that cannot be are listed with their reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")

# Every block that is not run, by its first line, with the reason the README gives.
NOT_RUN = {
    "git clone <this repository> bunryu": "needs the repository's address",
    "make test": "this is the test",
    "bunryu train experiment=nsmc_small": "downloads NSMC and trains for 20 minutes",
    "bunryu train experiment=nsmc_kcbert": "downloads 440 MB and wants a GPU",
    "tensorboard --logdir outputs": "serves until it is stopped",
    'eval "$(bunryu train -sc install=bash)"': "changes the shell it is typed in",
    "bunryu serve $RUN": "serves until it is stopped",
    "bunryu import-checkpoint epoch=1-val_loss=0.27.ckpt --model beomi/kcbert-base --output my-kcbert": (
        "needs a checkpoint of the tutorial's"
    ),
    "bunryu train -m experiment=nsmc_kcbert optimizer.lr=2e-5,5e-5 hydra/launcher=submitit_slurm \\": (
        "needs a Slurm cluster"
    ),
    "!pip install -q -c constraints.txt -e .": "a hosted notebook's cell",
    "make bench": "takes a quarter of an hour",
}


@dataclass(frozen=True)
class Block:
    script: str
    reason: str

    @property
    def first(self) -> str:
        return self.script.splitlines()[0].split("  #")[0].strip()


BLOCKS = [
    Block(script, reason or "")
    for reason, script in re.findall(r"(?:<!-- not run: (.+?) -->\n)?```sh\n(.*?)```", README, re.DOTALL)
]


def test_the_blocks_that_are_not_run_are_these() -> None:
    assert {block.first: block.reason for block in BLOCKS if block.reason} == NOT_RUN


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout's files elsewhere, so that what the commands leave does not pile up in it."""
    folder = tmp_path_factory.mktemp("readme") / "bunryu"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)  # with its time: make compares it
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv/.set-up").touch()  # newer than what it depends on: make has nothing to install
    return folder


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if not block.reason], ids=lambda block: block.first
)
def test_a_command_of_the_readme_runs(block: Block, copy: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    environment.pop("OMP_NUM_THREADS")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.script], cwd=copy, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_every_file_and_folder_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\(((?!https?://|#|\.\./)[^)]+)\)", README)
    assert len(links) >= 8
    assert [link for link in links if not (ROOT / link.split("#")[0]).exists()] == []


def test_the_readme_maps_every_argument_of_the_tutorial() -> None:
    section = README.split("## The tutorial's arguments")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert " ".join(rows) == (
        "pretrained_model_name downstream_task_name downstream_corpus_name downstream_corpus_root_dir "
        "downstream_model_dir max_seq_length save_top_k monitor seed overwrite_cache force_download "
        "test_mode learning_rate epochs batch_size cpu_workers fp16 tpu_cores "
        "downstream_model_checkpoint_fpath"
    )
