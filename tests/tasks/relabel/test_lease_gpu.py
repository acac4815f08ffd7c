"""A GPU for one run alone: held by a lock that ends with its process, however it ends."""

import os
import signal
import subprocess
import sys

import pytest

from labelmill.schemas.errors import WorkFailed
from labelmill.tasks.relabel import devices, lease_gpu

HOLD = """
import sys
from labelmill.tasks.relabel.lease_gpu import lease_gpu
print(lease_gpu(sys.argv[1:]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """Let another process lease one of the GPUs named; return the process and the place that it got."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(lease_gpu.tempfile, "tempdir", None)
    monkeypatch.setattr(lease_gpu, "_held", {})
    running = []

    def start(*names):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_lease_gpu_of_several_processes_is_another_for_each(hold):
    assert [hold("a", "b", "c")[1] for _ in range(3)] == [0, 1, 2]


def test_lease_gpu_of_a_killed_process_is_free_again(hold):
    first, _ = hold("a", "b")
    hold("a", "b")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert lease_gpu.lease_gpu(["a", "b"]) == 0


def test_lease_gpu_twice_in_a_process_gives_the_same(hold):
    assert [lease_gpu.lease_gpu(["a", "b"]) for _ in range(2)] == [0, 0]
    assert hold("a", "b")[1] == 1


def test_lease_gpu_leaves_a_file_that_others_may_open_and_no_cleaner_takes(hold, tmp_path):
    before = os.umask(0o077)
    try:
        lease_gpu.lease_gpu(["a"])
    finally:
        os.umask(before)
    (lock,) = tmp_path.glob("*.lock")
    assert lock.stat().st_mode & 0o777 == 0o644
    os.close(lease_gpu._held.pop("a"))
    os.utime(lock, (0, 0))
    lease_gpu.lease_gpu(["a"])
    assert lock.stat().st_mtime > 0


def test_lease_gpu_while_all_are_held_waits_until_asked_to_stop(hold, asked_to_stop):
    hold("a")
    with pytest.raises(WorkFailed, match="stopped on request"):
        lease_gpu.lease_gpu(["a"])


def test_choose_devices_one_is_a_gpu_that_nobody_holds_and_the_cpu_without_any(hold, monkeypatch):
    monkeypatch.setattr(devices, "_name_of", lambda number: f"GPU-{number}")
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    hold("GPU-0", "GPU-1")
    assert devices.choose_devices("one") == ("cuda:1",)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    assert devices.choose_devices("one") == ("cpu",)
