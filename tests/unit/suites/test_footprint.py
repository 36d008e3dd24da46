"""What the fault suite takes for the memory and the descriptors of a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.faults import footprint

MEGABYTE = 1 << 20


def test_open_files_are_counted(tmp_path: Path) -> None:
    before = footprint.of(os.getpid()).descriptors
    with (tmp_path / "file").open("w"):
        assert footprint.of(os.getpid()).descriptors == before + 1
    assert footprint.of(os.getpid()).descriptors == before


def test_connections_to_a_port_can_be_left_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = footprint.of(os.getpid()).descriptors
        with socket.create_connection(("127.0.0.1", port)):
            assert footprint.of(os.getpid()).descriptors == before + 1
            assert footprint.of(os.getpid(), [port]).descriptors == before


def test_the_peak_is_that_since_the_last_look() -> None:
    # In a process of its own: the allocator of this one may hold memory already.
    code = (
        "import os; from tests.faults import footprint\n"
        "footprint.of(os.getpid()); held = b'x' * (40 << 20); del held\n"
        "for _ in range(2): print(footprint.of(os.getpid()).peak)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    first, second = map(int, done.stdout.split())
    assert first - second > 30 * MEGABYTE


def test_children_are_counted_with_their_parent() -> None:
    alone = footprint.of(os.getpid()).memory
    with subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout and child.stdout.readline()
        assert footprint.of(os.getpid()).memory > alone + MEGABYTE
        child.communicate(b"\n")
