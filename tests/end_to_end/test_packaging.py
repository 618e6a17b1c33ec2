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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bunryu`` command of another environment that has the wheel and this one's libraries."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet",
         "--no-deps", "--no-index", str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    # A .pth found through another .pth is not read: the editable install of this environment stays out.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", "utf-8")
    return folder / "bin/bunryu"


def run(command: Path, *arguments: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_the_configs_the_sample_and_the_plugin_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"bunryu/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert configs == {name for name in names if name.startswith("bunryu/conf/")}
    plugin = {"hydra_plugins/bunryu/__init__.py", "hydra_plugins/bunryu/config_directory.py"}
    assert {"bunryu/sample/ratings_train.txt", "bunryu/sample/ratings_test.txt"} | plugin <= names
    assert "hydra_plugins/__init__.py" not in names
    assert {name.split("/")[0] for name in names} == {"bunryu", "hydra_plugins", "bunryu-0.1.0.dist-info"}


def test_the_editable_install_works_in_another_folder(tmp_path: Path) -> None:
    assert yaml.safe_load(run(BUNRYU, "train", "--cfg", "job", cwd=tmp_path))["seed"] == 7
    assert PLUGIN in run(BUNRYU, "train", "--info", "plugins", cwd=tmp_path)


def test_the_wheel_works_in_another_environment_and_folder(elsewhere: Path, tmp_path: Path) -> None:
    where = "import bunryu; print(bunryu.__file__)"
    module = subprocess.run(
        [elsewhere.with_name("python"), "-c", where], capture_output=True, text=True, check=True
    )
    assert str(elsewhere.parents[1]) in module.stdout, "the wheel's bunryu, not the checkout's"
    assert yaml.safe_load(run(elsewhere, "train", "--cfg", "job", cwd=tmp_path))["model"]["name"] == "tiny"
    assert PLUGIN in run(elsewhere, "train", "--info", "plugins", cwd=tmp_path)


def test_the_wheel_trains(elsewhere: Path, tmp_path: Path) -> None:
    said = run(elsewhere, "train", "limit_rows=40", "epochs=1", cwd=tmp_path)
    assert "test/accuracy" in said
    assert len(list((tmp_path / "outputs/sample-tiny").iterdir())) == 1
