"""Everything that a GPU has to show, in under eight minutes: ``python scripts/gpu_check.py --out gpu``.

One process after the other, each ended where the time is up: the tests marked ``gpu``, one whole run of preset
``accurate`` under the profilers of Python and torch, then the benchmarks with ``--device cuda``, file by file.
``--out`` gets ``summary.md`` with device and versions, the benchmarks' JSON and the profiles. Ends with 1 where a
step failed.
``--device cpu --images 2`` tries the script itself.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("presets", "streaming", "extraction", "latency", "surgery")
"""Files of benchmarks, what matters most first."""
SIZE, IMAGES, SECONDS = 320, 64, 460
TESTS, RUN = 0.2, 0.4
"""Shares of the time that the tests and the run may take."""


@dataclass(frozen=True)
class Step:
    """What was run, and how it ended: an exit code, or ``None`` where the time was up."""

    name: str
    code: int | None
    seconds: float
    last: str

    @property
    def fine(self) -> bool:
        return self.code in (0, 5)  # 5: pytest found nothing to run

    def line(self) -> str:
        how = "not finished in time" if self.code is None else "done" if self.fine else f"failed ({self.code})"
        return f"| {self.name} | {how} | {self.seconds:.0f} | {self.last} |"


def step(name: str, command: Sequence[str], seconds: float, out: Path, **environment: str) -> Step:
    """Runs a command for so long at most; what it says goes to ``out/NAME.log``."""
    start = time.monotonic()
    log = out / f"{name.replace(' ', '-')}.log"
    code: int | None = None
    with log.open("w", encoding="utf-8") as said:
        try:
            done = subprocess.run(  # noqa: S603 - our own commands
                [sys.executable, *command],
                cwd=ROOT,
                env=os.environ | {"YOLO_OFFLINE": "true"} | environment,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=max(seconds, 1),
                check=False,
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            said.write(f"\nended after {seconds:.0f} s\n")
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return Step(name, code, time.monotonic() - start, lines[-1].strip("= ") if lines else "")


def accurate(device: str, images: int, imgsz: int, out: Path) -> None:
    """One run of preset ``accurate`` on the demo's detector and scenes, profiled."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    import seqprune
    from seqprune.demo import weights_path, write_scenes

    # Events of a whole run on a CPU take longer to be kept than the run.
    kernels = profile(activities=[ProfilerActivity.CUDA]) if device == "cuda" else None
    with tempfile.TemporaryDirectory() as folder:
        data = write_scenes(Path(folder) / "digits", train=images, val=2, size=imgsz)
        python = cProfile.Profile()
        start = time.perf_counter()
        with kernels or nullcontext():
            python.enable()
            result = seqprune.prune(
                weights_path(),
                str(data),
                preset="accurate",
                target="params=0.8",
                imgsz=imgsz,
                images=images,
                batch=8,
                device=0 if device == "cuda" else "cpu",
                val=False,
            )
            python.disable()
        seconds = time.perf_counter() - start
    text = io.StringIO()
    pstats.Stats(python, stream=text).sort_stats("cumulative").print_stats(60)
    (out / "profile-python.txt").write_text(text.getvalue(), encoding="utf-8")
    if kernels is not None:
        table = kernels.key_averages().table(sort_by="self_cuda_time_total", row_limit=60)
        (out / "profile-torch.txt").write_text(table, encoding="utf-8")
    peak = f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB at most" if device == "cuda" else ""
    kept = result.after.params / result.before.params
    sys.stdout.write(f"{images} images of {imgsz} px: {seconds:.1f} s{peak}, {kept:.3f} of the parameters stay\n")


def about(device: str) -> str:
    """The device and the versions that figures hang on."""
    import torch

    name = torch.cuda.get_device_name(0) if device == "cuda" else "CPU"
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return f"{name}; torch {torch.__version__}, CUDA {torch.version.cuda}; TF32 in cuDNN, in products: {tf32}"


def check(device: str, images: int, imgsz: int, seconds: float, out: Path, benchmarks: Sequence[str]) -> list[Step]:
    """All steps, and their summary in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    tests = ["-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "tests/observe", "tests/engine"]
    if device == "cpu":
        tests = tests[:-2]
    steps = [step("tests", tests, TESTS * seconds, out, SEQPRUNE_GPU_TESTS=device)]
    run = [__file__, "--device", device, "--images", str(images), "--imgsz", str(imgsz), "--out", str(out), "--run"]
    steps.append(step("accurate", run, RUN * seconds, out))
    for name in benchmarks:
        left = end - time.monotonic()
        if left < 5:
            steps.append(Step(f"benchmarks {name}", None, 0.0, "no time was left"))
            continue
        where = f"--benchmark-json={out / f'{name}.json'}"
        command = ["-m", "pytest", "-q", f"benchmarks/test_{name}.py", "--device", device, where]
        steps.append(step(f"benchmarks {name}", command, left, out))
    head = f"# GPU check\n\n{about(device)}\n\n| step | | seconds | last line |\n|---|---|---|---|\n"
    (out / "summary.md").write_text(head + "\n".join(each.line() for each in steps) + "\n", encoding="utf-8")
    return steps


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--images", type=int, default=IMAGES, help="of the whole run (%(default)s)")
    parser.add_argument("--imgsz", type=int, default=SIZE, help="their side (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="all steps together (%(default)s)")
    parser.add_argument("--benchmarks", nargs="*", default=BENCHMARKS, choices=BENCHMARKS, help="all")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    out = given.out.resolve()
    if given.run:
        accurate(given.device, given.images, given.imgsz, out)
        return 0
    steps = check(given.device, given.images, given.imgsz, given.seconds, out, given.benchmarks)
    sys.stdout.write((out / "summary.md").read_text(encoding="utf-8"))
    return 0 if all(each.fine or each.code is None for each in steps) else 1


if __name__ == "__main__":
    sys.exit(main())
