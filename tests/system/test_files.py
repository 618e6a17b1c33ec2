"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bunryu.system.files import replacing


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new/target"
    with pytest.raises(KeyboardInterrupt), replacing(target) as staging:
        (staging / "part").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    for content in ("one", "two"):
        with replacing(target) as staging:
            (staging / content).touch()
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    with pytest.raises(ValueError, match="no"), replacing(target):
        raise ValueError("no")
    assert [path.name for path in target.iterdir()] == ["two"]
    assert target.stat().st_mode & 0o777 == tmp_path.joinpath("new").stat().st_mode & 0o777
