"""bunryu from an editable install and from a built wheel, in other folders and another environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BUNRYU = Path(sys.executable).with_name("bunryu")
PLUGIN = "BunryuConfigDirectory"  # our plugin module's one class, as --info plugins lists it


def run(command: str | Path, *arguments: str | Path, cwd: Path) -> str:
    """What a command prints, which imports what is installed and not what PYTHONPATH names."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bunryu`` command of another environment that has the wheel and this one's libraries."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    site = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    options = ["--quiet", "--no-deps", "--no-index"]
    run(
        sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", *options, wheel, cwd=folder
    )
    # A .pth found through another .pth is not read: the editable install of this environment stays out.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", "utf-8")
    return folder / "bin/bunryu"


def test_the_wheel_holds_the_configs_the_sample_and_the_plugin_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"bunryu/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert configs == {name for name in names if name.startswith("bunryu/conf/")}
    plugin = {"hydra_plugins/bunryu/__init__.py", "hydra_plugins/bunryu/config_directory.py"}
    assert {f"bunryu/data/sample/ratings_{split}.txt" for split in ("train", "test")} | plugin <= names
    assert "hydra_plugins/__init__.py" not in names
    assert {name.split("/")[0] for name in names} == {"bunryu", "hydra_plugins", "bunryu-0.1.0.dist-info"}


def test_the_editable_install_works_in_another_folder(tmp_path: Path) -> None:
    assert yaml.safe_load(run(BUNRYU, "train", "--cfg", "job", cwd=tmp_path))["seed"] == 7
    assert PLUGIN in run(BUNRYU, "train", "--info", "plugins", cwd=tmp_path)


def test_the_wheel_trains_in_another_environment_and_folder(elsewhere: Path, tmp_path: Path) -> None:
    imported = run(elsewhere.with_name("python"), "-c", "import bunryu; print(bunryu.__file__)", cwd=tmp_path)
    assert str(elsewhere.parents[1]) in imported, "the wheel's bunryu, not the checkout's"
    assert PLUGIN in run(elsewhere, "train", "--info", "plugins", cwd=tmp_path)
    assert "test/accuracy" in run(elsewhere, "train", "limit_rows=40", "epochs=1", cwd=tmp_path)
    assert len(list((tmp_path / "outputs/sample-tiny").iterdir())) == 1
