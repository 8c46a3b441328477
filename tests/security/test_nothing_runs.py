"""The promise of SECURITY.md: whatever a file says, nothing in it runs, and it ends in one line within seconds.

``SEQPRUNE_ATTACKS=200000 pytest tests/security`` draws more of them, of other seeds.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import malice
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from seqprune.errors import SeqPruneError
from seqprune.plan import PrunePlan
from seqprune.yolo.data.dataset import resolve
from seqprune.yolo.files.description import check_description
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import build
from seqprune.yolo.files.tensors import save_pair
from seqprune.yolo.files.unpickle import read

ATTACKS = int(os.environ.get("SEQPRUNE_ATTACKS", "10000"))
SECONDS, WAITING = 10.0, 60.0  # of the processor, which others may share, and on the wall
# Of a thousand: what takes microseconds is tried most.
SHARES = {
    "pickles": 560,
    "archives": 60,
    "descriptions": 150,
    "plans": 120,
    "data": 60,
    "yaml": 20,
    "pairs": 10,
    "networks": 20,
}
_RUN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "subprocess.Popen",
    "pty.spawn",
    "socket.connect",
)
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "shutil.rmtree",
    "os.chmod",
    "os.symlink",
    "os.link",
)
_OURS = (
    "torch",
    "torchvision",
    "ultralytics",
    "numpy",
    "seqprune",
    "encodings",
    "yaml",
    "json",
    "unicodedata",
    "stringprep",
)


class Watch:
    """Sees what Python does while attacks are tried, and keeps what it should not have done."""

    def __init__(self, folder: Path, marker: str) -> None:
        self.on, self.folder, self.marker, self.seen = False, str(folder), marker, []
        self.known = set(sys.modules)
        self.seen: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on:
            self.on = False  # what is done here is not watched
            try:
                if self._is_wrong(event, args):
                    self.seen.append(f"{event} {args!r:.200}")
            finally:
                self.on = True

    def _is_wrong(self, event: str, args: tuple[Any, ...]) -> bool:
        if event in _RUN:
            return True
        if event in _CHANGES:
            return not self._is_inside(args[0], args[-1] if event in ("os.remove", "os.rmdir") else -1)
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            writes = isinstance(args[1], str) and set(args[1]) & set("wax+")
            return bool(writes) and not self._is_inside(args[0]) and os.fspath(args[0]) != os.devnull
        if event == "import":
            return args[0].partition(".")[0] not in {*_OURS, *(name.partition(".")[0] for name in self.known)}
        return event in ("exec", "compile") and self.marker in repr(getattr(args[0], "co_consts", args[0]))

    def _is_inside(self, path: Any, folder: int = -1) -> bool:
        if folder != -1:
            path = Path(os.readlink(f"/proc/self/fd/{folder}"), path)
        return isinstance(path, int) or os.path.abspath(os.fsdecode(path)).startswith((self.folder, "/tmp/seqprune-"))  # noqa: S108


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    folder = tmp_path_factory.mktemp("attacks")
    found = Watch(folder, malice.MARK)
    sys.addaudithook(found)  # for good: there is no taking it back
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # a library's first import writes, in a fresh environment
        yield found
    found.on = False


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    description = malice.description(random.Random(0), "") | {  # noqa: S311 - no secret
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C2f", [8, True]], [-1, 1, "Conv", [16, 3, 2]]],
        "head": [[[2], 1, "Detect", ["nc"]]], "nc": 2, "channels": 3, "activation": None,
    }  # fmt: skip
    made: Any = DetectionModel({key: description[key] for key in ("nc", "channels", "backbone", "head")}, verbose=False)
    made.names = {0: "a", 1: "b"}
    return made


def pickles(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    path = folder / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", malice.Pickles(draw, marker).program())
        file.writestr("a/version", "3\n")
        file.writestr("a/data/0", b"\0" * 16)
    return lambda: load(path) if draw.random() < 0.05 else read(path)


def archives(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    path = folder / "b.pt"
    if draw.random() < 0.3:
        torch.save({"model": 1, "x": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    elif draw.random() < 0.5:
        torch.save({"model": nn.Conv2d(1, 1, 1), "x": torch.ones(3)}, path)
    else:
        with zipfile.ZipFile(path, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
            for name in draw.sample(
                ["a/data.pkl", "a/version", "a/constants.pkl", "a/code/x.py", "data.pkl", "a/byteorder"], 4
            ):
                file.writestr(name, draw.choice([b"3\n", b"N.", b"little", b"\0" * 100_000]))
    path.write_bytes(malice.damaged(draw, path.read_bytes()))
    return lambda: read(path)


def descriptions(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    made = malice.description(draw, marker)

    def work() -> object:
        check_description(made)
        return build("detect", made, 2)

    return work


def yamls(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    path = folder / "c.yaml"
    path.write_text(malice.yaml_text(draw, marker, malice.description(draw, marker)), encoding="utf-8")
    return lambda: load(path)


def data(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    path = folder / "d.yaml"
    path.write_text(malice.yaml_text(draw, marker, malice.data_yaml(draw, marker)), encoding="utf-8")
    return lambda: resolve(path)


def plans(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    text = malice.plan_text(draw)
    return lambda: PrunePlan.from_json(text)


def pairs(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    path = folder / "e.safetensors"
    if not path.exists():
        save_pair(tiny, path, names=tiny.names)
        (folder / "e.plain").write_text(path.with_suffix(".json").read_text())
    description = json.loads((folder / "e.plain").read_text())
    odd = draw.choice(
        [None, -1, 10**30, "\x1b[2J", [], {}, {"0": 1}, [["model.0", "forward", 3]], malice.code_text(draw, marker)]
    )
    if draw.random() < 0.5:
        description[draw.choice(sorted(description))] = odd
    else:
        description["yaml"] = malice.description(draw, marker)
    path.with_suffix(".json").write_text(json.dumps(description))
    return lambda: load(path)


def networks(draw: random.Random, folder: Path, marker: str, tiny: Any) -> Callable[[], object]:
    """A network with something else where one of its attributes was."""
    path = folder / "f.pt"
    plain = [None, -1, 10**12, 1.5, float("nan"), "\x1b[2J", [], {}, [[1]], True, {"a": {}}, "x" * 9999]
    odd = draw.choice([*plain, {0: "\x1b[2J", 1: "b"}, torch.ones(0), torch.zeros(2), nn.Identity()])
    module: Any = draw.choice(list(tiny.modules()))
    key = draw.choice(
        sorted({*vars(module), "forward", "names", "stride", "yaml", "args", "task", "save", "state_dict"})
    )
    before = dict(vars(module))
    vars(module)[key] = malice.description(draw, marker) if key == "yaml" and draw.random() < 0.7 else odd
    if draw.random() < 0.1 and key != "_modules":
        vars(module)["_modules"] = {**module._modules, "inner": draw.choice([tiny, module])}
    held = {
        "model": tiny,
        "epoch": draw.choice([-1, odd]),
        "train_args": draw.choice([{}, odd, {"data": marker, "epochs": odd}]),
    }
    torch.save(held, path)
    vars(module).clear()
    vars(module).update(before)
    return lambda: load(path)


KINDS: dict[str, Callable[..., Callable[[], object]]] = {
    "pickles": pickles, "archives": archives, "descriptions": descriptions, "plans": plans, "data": data,
    "yaml": yamls, "pairs": pairs, "networks": networks,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_runs_hangs_or_ends_in_a_traceback(kind: str, watch: Watch, tiny: nn.Module) -> None:
    folder, marker = Path(watch.folder), str(Path(watch.folder) / malice.MARK)
    first = 0 if ATTACKS <= 10_000 else 1_000_000
    failed: list[str] = []
    for number in range(first, first + ATTACKS * SHARES[kind] // 1000):
        draw = random.Random(f"{kind} {number}")  # noqa: S311 - no secret
        attack = KINDS[kind](draw, folder, marker, tiny)
        start, worked = time.monotonic(), time.process_time()
        watch.on = True
        try:
            attack()
        except SeqPruneError as error:
            if "bug" in str(error) or not str(error).isprintable():
                failed.append(f"{number}: {error!r:.300}")
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            failed.append(f"{number}: {error!r:.300}")
        finally:
            watch.on = False
        waited, worked = time.monotonic() - start, time.process_time() - worked
        if watch.seen or os.path.exists(marker) or worked > SECONDS or waited > WAITING:
            failed.append(f"{number}: {watch.seen} {worked:.1f} of {waited:.1f} s")
            watch.seen.clear()
    assert not failed, "\n".join(failed[:20])


def test_the_watch_sees_what_runs(watch: Watch) -> None:
    """Each attack is one that would be noticed: a reader that runs pickles is caught."""
    import pickle

    program = b"cposix\nsystem\n(S'true'\ntR."
    watch.on = True
    try:
        pickle.loads(program)  # noqa: S301 - that is the point
    finally:
        watch.on = False
    assert any(seen.startswith("os.system") for seen in watch.seen)
    watch.seen.clear()
