"""Free memory of a container, read from cgroup and proc files."""

import os
from pathlib import Path

import pytest

from trainyard_trainer.memory.host import free_memory

PAGES = 1000
IN_USE = PAGES * os.sysconf("SC_PAGE_SIZE")
COMMON = {"proc/self/statm": f"5000 {PAGES} 300 1 0 2000 0", "proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8000000 kB"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        pytest.param({}, 8_000_000 * 1024, id="no limit"),
        pytest.param({"sys/fs/cgroup/memory.max": "2000000000"}, 2_000_000_000 - IN_USE, id="v2"),
        pytest.param({"sys/fs/cgroup/memory.max": "max"}, 8_000_000 * 1024, id="v2 without a limit"),
        pytest.param({"sys/fs/cgroup/memory.max": "1000"}, 0, id="more in use than allowed"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/container",
                "sys/fs/cgroup/pod/memory.max": "3000000000",
                "sys/fs/cgroup/pod/container/memory.max": "max",
            },
            3_000_000_000 - IN_USE,
            id="v2: the pod's limit binds its containers",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/kubepods/pod1\n0::/",
                "sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes": "1000000000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            1_000_000_000 - IN_USE,
            id="v1",
        ),
        pytest.param(
            {"sys/fs/cgroup/memory.max": "90000000000"}, 8_000_000 * 1024, id="a limit above the memory of the machine"
        ),
    ],
)
def test_free_memory(tmp_path: Path, files: dict[str, str], free: int) -> None:
    for name, content in {**COMMON, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert free_memory(tmp_path) == free


def test_free_memory_is_unknown_without_proc(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


def test_free_memory_of_this_machine() -> None:
    assert (free_memory() or 0) > 2**20
