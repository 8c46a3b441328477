"""Which runtimes there are, which of them are installed, and what a time says of the machine."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from seqprune.errors import InputError
from seqprune.observe.device import as_device
from seqprune.plain import is_count
from seqprune.runtimes.turns import Clock

RUNTIMES = {
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "tensorrt": "tensorrt",
}
"""By name, the package that has to be installed."""
QUANTISING = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "nncf")}
"""Those with a tool of their own that brings a network to eight bits, and the packages of that."""


@dataclass(frozen=True)
class Where:
    """
    Attributes:
        runtime: of ``RUNTIMES``.
        threads: of a processor; as many as torch uses where left out.
        device: ``cpu``, or the number of a GPU.
        full: whether OpenVINO has to compute in float32; else in what it takes for the fastest on that device.
    """

    runtime: str = "torch"
    threads: int | None = None
    device: str = "cpu"
    full: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and not is_count(self.threads, 1):
            raise InputError(f"threads={self.threads!r}: give 1 or more")

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def clock(self) -> Clock:
        """Of one thread the processor's own time, in which other programs do not count; else the time that passes:
        threads wait for each other, and for a GPU.
        """
        return time.process_time if self.on_cpu and self.threads == 1 else time.perf_counter

    @property
    def number(self) -> int:
        """Of the GPU."""
        return as_device(self.device).index or 0

    def settled(self) -> Where:
        """With the number of threads filled in.

        Raises:
            InputError: that runtime is not known, not installed, or does not run on that device.
        """
        if self.runtime not in RUNTIMES:
            raise InputError(f"runtime={self.runtime!r} is not known: choose {', '.join(RUNTIMES)}")
        if not is_installed(self.runtime):
            package = RUNTIMES[self.runtime]
            raise InputError(
                f"runtime {self.runtime} is not installed here: pip install {package}, or choose of "
                f"{', '.join(installed())}"
            )
        if self.runtime == "tensorrt" and self.on_cpu:
            raise InputError("runtime tensorrt runs on a GPU: give its number as the device, --device 0")
        if self.runtime == "ncnn" and not self.on_cpu:
            raise InputError("runtime ncnn is timed on a processor here: leave the device out")
        return replace(self, threads=self.threads or torch.get_num_threads())

    def about(self) -> dict[str, Any]:
        """What a time needs beside it to be understood."""
        return {
            "runtime": self.runtime,
            "version": version(self.runtime),
            "threads": self.threads,
            "device": self.device,
            "processor": processor() if self.on_cpu else torch.cuda.get_device_name(as_device(self.device)),
        }


def is_installed(runtime: str) -> bool:
    """Whether its package can be imported."""
    return find_spec(RUNTIMES[runtime]) is not None


def check_tool(runtime: str) -> None:
    """
    Raises:
        InputError: there is none for that runtime, or it is not installed.
    """
    if runtime not in QUANTISING:
        known = " and ".join(QUANTISING)
        raise InputError(f"eight bits are for {known}, not for {runtime}: give one of them as --runtime")
    if missing := missing_tools(runtime):
        raise InputError(f"eight bits in {runtime} need {missing[0]}: pip install {missing[0]}, or leave out --int8")


def has_tool(runtime: str) -> bool:
    """Whether it can bring networks to eight bits here."""
    return runtime in QUANTISING and not missing_tools(runtime)


def missing_tools(runtime: str) -> list[str]:
    """Packages that would have to be installed for that; none where nothing would help."""
    if runtime not in QUANTISING:
        return []
    return [package for package in QUANTISING[runtime] if find_spec(package) is None]


def installed() -> list[str]:
    """Names of the runtimes that can be timed here."""
    return [name for name in RUNTIMES if is_installed(name)]


def version(runtime: str) -> str:
    """Of its package; empty where nobody says."""
    for name in (RUNTIMES[runtime], f"{RUNTIMES[runtime]}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def processor() -> str:
    """Its name, and how many cores may be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name() or platform.machine()}, {cores} cores"


def processor_name() -> str | None:
    """As the system says it; ``None`` where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or None)
