"""Which process this is, in torchrun's words and in srun's."""

from __future__ import annotations

import pytest

from bunryu.errors import ConfigError
from bunryu.system import ranks
from helpers.together import as_srun, as_torchrun, become


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*as_torchrun(0, 2, 15000), *as_srun(0, 2, 15000)):
        monkeypatch.delenv(name, raising=False)


def test_one_process_is_not_several_machines() -> None:
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    ranks.check(4)  # starting their processes is still to come
    with pytest.raises(ConfigError, match="one process was started, for 2 machines") as caught:
        ranks.check(4, 2)
    assert caught.value.where == "trainer.num_nodes"


def test_torchrun_and_srun_tell_and_torchrun_within_a_step_of_sruns(monkeypatch: pytest.MonkeyPatch) -> None:
    for how, rank in ((as_srun, 0), (as_srun, 2), (as_torchrun, 1)):
        become(how(rank, 3, 15000), monkeypatch)
        assert (ranks.rank(), ranks.world_size()) == (rank, 3)
        ranks.check(3)
    become(as_srun(0, 2, 15000) | as_torchrun(5, 8, 15000), monkeypatch)
    assert (ranks.rank(), ranks.world_size()) == (5, 8)


def test_a_batch_script_and_a_single_task_are_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    become({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "0"}, monkeypatch)
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    ranks.check(4)
    become({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "3"}, monkeypatch)
    assert (ranks.rank(), ranks.world_size()) == (0, 1)


@pytest.mark.parametrize("how", [as_torchrun, as_srun])
def test_as_many_processes_as_devices_on_each_machine(how, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def refused(what: str, devices: int) -> tuple[str, str]:
        with pytest.raises(ConfigError, match=what) as caught:
            ranks.check(devices)
        return caught.value.where, caught.value.fix

    become(how(1, 2, 15000), monkeypatch)
    mended = ("accelerator.devices", "accelerator.devices=2")
    assert refused("2 processes were started on this machine for 1 devices", 1) == mended
    become(how(1, 8, 15000) | {"LOCAL_WORLD_SIZE": "4", "SLURM_NTASKS_PER_NODE": "4"}, monkeypatch)
    ranks.check(4, 2)
    fix = "accelerator.devices=4 +trainer.num_nodes=2"
    assert refused("8 processes were started for 4 devices on 1 machines", 4)[1] == fix
    assert refused("4 processes were started on this machine for 8 devices", 8)[1] == fix


def test_srun_has_to_be_told_how_many_processes_a_machine_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    become(as_srun(0, 2, 15000), monkeypatch)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ConfigError, match="srun started 2 processes without being told") as caught:
        ranks.check(2)
    assert caught.value.fix == "--ntasks-per-node=2"
