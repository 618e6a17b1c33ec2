"""Which process this is, in torchrun's words and in srun's."""

from __future__ import annotations

import pytest

from bunryu.errors import ConfigError
from bunryu.system import ranks
from helpers.together import as_srun, as_torchrun

TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
SLURM = tuple(as_srun(0, 2, 15000))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TOLD, *SLURM):
        monkeypatch.delenv(name, raising=False)


def told(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_nobody_told_anything() -> None:
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    ranks.check(4)  # starting their processes is still to come


def test_one_process_is_not_several_machines() -> None:
    with pytest.raises(ConfigError, match="one process was started, for 2 machines") as caught:
        ranks.check(4, 2)
    assert caught.value.where == "trainer.num_nodes"


@pytest.mark.parametrize("how", [as_torchrun, as_srun])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_torchrun_and_srun_tell(how, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    told(monkeypatch, **how(rank, 3, 15000))
    assert (ranks.rank(), ranks.world_size()) == (rank, 3)
    ranks.check(3)


def test_torchrun_within_a_step_of_sruns_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, **as_srun(0, 2, 15000))
    told(monkeypatch, **as_torchrun(5, 8, 15000))
    assert (ranks.rank(), ranks.world_size()) == (5, 8)


def test_a_batch_script_and_a_single_task_are_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, SLURM_NTASKS="8", SLURM_NTASKS_PER_NODE="4", SLURM_PROCID="0")
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    ranks.check(4)
    told(monkeypatch, SLURM_STEP_NUM_TASKS="1", SLURM_PROCID="3")
    assert (ranks.rank(), ranks.world_size()) == (0, 1)


@pytest.mark.parametrize("how", [as_torchrun, as_srun])
def test_other_processes_than_devices(how, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    told(monkeypatch, **how(1, 2, 15000))
    with pytest.raises(ConfigError, match="2 processes were started on this machine for 1 devices") as caught:
        ranks.check(1)
    assert (caught.value.where, caught.value.fix) == ("accelerator.devices", "accelerator.devices=2")


@pytest.mark.parametrize("how", [as_torchrun, as_srun])
def test_several_machines(how, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    told(monkeypatch, **how(1, 8, 15000))
    told(monkeypatch, LOCAL_WORLD_SIZE="4", SLURM_NTASKS_PER_NODE="4")
    ranks.check(4, 2)
    with pytest.raises(ConfigError, match="8 processes were started for 4 devices on 1 machines") as caught:
        ranks.check(4, 1)
    assert caught.value.fix == "accelerator.devices=4 +trainer.num_nodes=2"
    with pytest.raises(ConfigError, match="4 processes were started on this machine for 8 devices") as caught:
        ranks.check(8, 1)
    assert caught.value.fix == "accelerator.devices=4 +trainer.num_nodes=2"


def test_srun_has_to_be_told_how_many_processes_a_machine_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, **as_srun(0, 2, 15000))
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ConfigError, match="srun started 2 processes without being told") as caught:
        ranks.check(2)
    assert caught.value.fix == "--ntasks-per-node=2"
