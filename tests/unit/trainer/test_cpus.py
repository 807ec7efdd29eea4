import os
from pathlib import Path

import pytest

from trainyard_trainer.cpus import cpu_limit, threads_per_process


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, 8, id="no cgroup"),
        pytest.param({"sys/fs/cgroup/cpu.max": "200000 100000"}, 2, id="v2"),
        pytest.param({"sys/fs/cgroup/cpu.max": "max 100000"}, 8, id="v2 without a quota"),
        pytest.param({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1, id="less than one core"),
        pytest.param({"sys/fs/cgroup/cpu.max": "2500000 100000"}, 8, id="a quota above the number of cores"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/container",
                "sys/fs/cgroup/pod/cpu.max": "300000 100000",
                "sys/fs/cgroup/pod/container/cpu.max": "max 100000",
            },
            3,
            id="v2: the pod's quota binds its containers",
        ),
        pytest.param(
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            2,
            id="v1",
        ),
        pytest.param(
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            8,
            id="v1 without a quota",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpuset:/\n1:cpu,cpuacct:/kubepods/pod1\n0::/",
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_period_us": "100000",
            },
            1,
            id="v1: own cgroup",
        ),
    ],
)
def test_cpu_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert cpu_limit(tmp_path) == cores


@pytest.mark.parametrize(("processes", "threads"), [(1, 5), (2, 2), (4, 1), (8, 1)])
def test_processes_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(5)))
    assert threads_per_process(processes, tmp_path) == threads
