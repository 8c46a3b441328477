"""Options, the device, and what every row says about the machine."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits

from benchmarks.timing import Once, describe


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("seqprune benchmarks")
    group.addoption("--full", action="store_true", help="the large sizes too")
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="where networks run")
    group.addoption("--threads", type=int, default=1, help="threads on the CPU, for ours and for what is beside it")


def pytest_configure(config: pytest.Config) -> None:
    # Two threads that wait for each other on one busy core were seen to take forty times as long as one.
    torch.set_num_threads(config.getoption("--threads"))
    config.addinivalue_line("markers", "full: a large size, run with --full only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    large = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=large)
    items[:] = [item for item in items if item not in large]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Says what the times depend on, and leaves out the machine's name, which they do not."""
    machine_info.pop("node", None)
    machine_info["device"] = describe(_device(config)) if _has(_device(config)) else "no CUDA device"
    machine_info["threads"] = torch.get_num_threads()
    machine_info["versions"] = {
        name: found
        for name in ("seqprune", "torch", "numpy", "scikit-learn", "kmedoids", "kneed", "ultralytics", "onnxruntime")
        if (found := _version(name))
    }


@pytest.fixture(scope="session", autouse=True)
def _threads(pytestconfig: pytest.Config) -> Iterator[None]:
    with threadpool_limits(limits=pytestconfig.getoption("--threads")):
        yield


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the large sizes are wanted."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """Where networks run; skips where that is not there."""
    wanted = _device(pytestconfig)
    if not _has(wanted):
        pytest.skip("no CUDA device was found: the benchmarks of a GPU were not run")
    return wanted


@pytest.fixture(scope="session")
def cpu(pytestconfig: pytest.Config) -> torch.device:
    """For what runs on the CPU alone; skips where a GPU is asked for."""
    if _device(pytestconfig).type != "cpu":
        pytest.skip("runs on the CPU alone: leave --device out")
    return torch.device("cpu")


@pytest.fixture(scope="session")
def once() -> Once:
    """Results and times of what is slow, for the whole run."""
    return Once()


def _device(config: pytest.Config) -> torch.device:
    return torch.device(config.getoption("--device"))


def _has(device: torch.device) -> bool:
    return device.type == "cpu" or torch.cuda.is_available()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
