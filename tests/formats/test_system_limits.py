"""How many cores there are to keep busy, by the files of a system's control groups."""

import os
from pathlib import Path

import pytest

from lstm_serve.formats.system_limits import cores

V1 = "4:cpuset:/\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
V2 = "0::/kube/pod/abc\n"
LIMIT = "sys/fs/cgroup/cpu.max"
OF_V1 = "sys/fs/cgroup/cpu"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no control groups")
@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        (None, {}, 16),
        (V2, {LIMIT: "max 100000\n"}, 16),
        (V2, {LIMIT: "400000 100000\n"}, 4),
        (V2, {LIMIT: "250000 100000\n"}, 2),  # a part of a core is none
        (V2, {LIMIT: "50000 100000\n"}, 1),  # but there is always one
        (V2, {LIMIT: "6400000 100000\n"}, 16),
        (V2, {"sys/fs/cgroup/kube/pod/abc/cpu.max": "800000 100000\n"}, 8),
        # The least of all groups above holds.
        (V2, {"sys/fs/cgroup/kube/cpu.max": "300000 100000", "sys/fs/cgroup/kube/pod/abc/cpu.max": "800000 100000"}, 3),
        (V2, {LIMIT: "nothing that is known\n"}, 16),
        (V1, {f"{OF_V1}/cpu.cfs_quota_us": "-1\n", f"{OF_V1}/cpu.cfs_period_us": "100000\n"}, 16),
        (V1, {f"{OF_V1}/cpu.cfs_quota_us": "300000\n", f"{OF_V1}/cpu.cfs_period_us": "100000\n"}, 3),
        (
            V1,
            {
                f"{OF_V1}/docker/abc/cpu.cfs_quota_us": "150000\n",
                f"{OF_V1}/docker/abc/cpu.cfs_period_us": "50000\n",
            },
            3,
        ),
    ],
)
def test_cores_are_those_of_the_quota(
    group: str | None, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    if group is not None:
        files = {"proc/self/cgroup": group, **files}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert cores(tmp_path) == expected
