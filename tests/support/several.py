"""Processes of one group, started by hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def processes(count: int, code: str, **environment: str) -> list[subprocess.Popen[str]]:
    """Runs some code in several processes that find each other as under ``torchrun``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    support = Path(__file__).parent
    places = os.pathsep.join(map(str, (support.parent / "observe", support, support.parents[1])))
    shared = os.environ | environment | {"PYTHONPATH": places, "GLOO_SOCKET_IFNAME": "lo"}
    group = shared | {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", code],
            env=group | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
