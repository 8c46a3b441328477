# ruff: noqa: E501 - programs of bytes read better on one line; nothing here is secret
"""Files that try to run code, to hang, to fill the memory or to end in a traceback, drawn from a seed.

By construction, not by filtering: a pickle is a program that pushes one value, by any instruction, with calls of what runs
code anywhere in it; a description, a data YAML or a plan is a small valid one with something replaced.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
import struct
from typing import Any

import yaml

MARK = "seqprune_it_ran"
CALLABLES = """
os.system posix.system os.mkdir os.popen builtins.eval builtins.exec builtins.compile builtins.open builtins.__import__
__builtin__.eval __builtin__.execfile subprocess.Popen subprocess.call importlib.import_module runpy.run_path pty.spawn
builtins.getattr builtins.setattr builtins.vars builtins.map builtins.print builtins.type builtins.super operator.attrgetter
operator.methodcaller functools.partial functools.reduce types.FunctionType types.CodeType codecs.open io.open io.FileIO
shutil.rmtree shutil.copy socket.create_connection webbrowser.open ctypes.CDLL timeit.timeit code.interact pdb.run
pickle.loads pickle.load _pickle.loads marshal.loads shelve.open zipfile.ZipFile tempfile.mkdtemp logging.FileHandler
torch.load torch.hub.load torch.jit.load torch.serialization.load torch.storage._load_from_bytes torch.compile
torch.package.PackageImporter torch.fx.graph_module.GraphModule torch.fx.graph_module.reduce_graph_module
torch.nn.modules.conv.Conv2d torch.nn.modules.container.Sequential torch.nn.modules.linear.Linear torch.nn.Module
torch._utils._rebuild_tensor_v2 torch._utils._rebuild_parameter torch._utils._rebuild_tensor torch.FloatStorage
torch.storage.UntypedStorage torch.Size torch.device torch.float32 torch.utils.collect_env.run torch.classes.x
torchvision.ops.misc.Conv2dNormActivation torchvision.models.get_model torchvision.models.detection.faster_rcnn.FasterRCNN
torchvision.transforms.transforms.Lambda torchvision.transforms.transforms.Compose torchvision.transforms.functional.to_tensor
torchvision.transforms.functional.InterpolationMode torchvision.models.feature_extraction.DualGraphModule
ultralytics.nn.tasks.DetectionModel ultralytics.nn.tasks.parse_model ultralytics.nn.tasks.torch_safe_load
ultralytics.nn.tasks.Ensemble ultralytics.nn.tasks.YAML ultralytics.nn.modules.block.C2f ultralytics.nn.modules.conv.Conv
ultralytics.nn.autobackend.AutoBackend ultralytics.utils.IterableSimpleNamespace ultralytics.utils.loss.v8DetectionLoss
ultralytics.utils.downloads.safe_download ultralytics.utils.checks.check_requirements ultralytics.data.augment.LetterBox
ultralytics.utils.tal.TaskAlignedAssigner ultralytics.engine.model.Model ultralytics.nn.distill_model.DistillationModel
numpy.load numpy.dtype numpy.fromfile numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct numpy.core.multiarray.scalar
collections.OrderedDict collections.defaultdict builtins.bytearray builtins.set builtins.frozenset builtins.slice
builtins.complex _codecs.encode pathlib.PosixPath pathlib.Path seqprune.cli.app.call seqprune.yolo.files.load.load . os. .system
""".split()


class Pickles:
    """Programs for the unpickler, of one seed.

    Args:
        draw: The seed's generator.
        marker: A path that code makes where it runs.
    """

    def __init__(self, draw: random.Random, marker: str) -> None:
        self.draw, self.marker, self.memo = draw, marker, 0

    def program(self) -> bytes:
        """A whole pickle, sometimes damaged."""
        body = self.value(0) + b"."
        if self.draw.random() < 0.7:
            frame = (
                b"\x95" + struct.pack("<Q", self.draw.choice([len(body), 0, 3, 1 << 40]))
                if self.draw.random() < 0.2
                else b""
            )
            body = b"\x80" + bytes([self.draw.choice([0, 1, 2, 2, 3, 4, 4, 5, 9])]) + frame + body
        return damaged(self.draw, body) if self.draw.random() < 0.25 else body

    def value(self, depth: int) -> bytes:
        """Instructions that push one value."""
        if depth > 4 or self.draw.random() < 0.25:
            return self.atom()
        return self.draw.choice((self.call, self.call, self.holder, self.filled, self.remembered, self.odd))(depth)

    def atom(self) -> bytes:
        draw = self.draw
        text = draw.choice(
            [f"touch {self.marker}", f"open({self.marker!r}, 'w')", "forward", "a", "\x1b[2J", "x" * 300]
        )
        number = draw.choice([0, 1, -1, 255, 1 << 31, 1 << 62, 1 << 200])
        return draw.choice(
            [
                b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f", b"I01\n", b"F1e999\n", b"Fnan\n", b"L99L\n",
                b"I" + str(draw.getrandbits(40)).encode() + b"\n", b"K" + bytes([draw.randrange(256)]),
                b"J" + struct.pack("<i", draw.randrange(-(1 << 31), 1 << 31)), b"G" + struct.pack(">d", float("inf")),
                b"\x8a\x04" + struct.pack("<i", -5), b"\x8b" + struct.pack("<i", draw.choice([4, -1, 1 << 30])) + b"abcd",
                b"X" + struct.pack("<I", len(text.encode())) + text.encode(), b"S" + repr(text).encode() + b"\n",
                b"V" + text.encode() + b"\n", b"\x8c" + bytes([min(len(text), 255)]) + text.encode()[:255],
                b"\x8d" + struct.pack("<Q", draw.choice([1, 1 << 50])) + b"z", b"U\x03abc", b"C\x03abc",
                b"\x8e" + struct.pack("<Q", draw.choice([2, 1 << 60])) + b"zz",
                b"\x96" + struct.pack("<Q", draw.choice([2, 1 << 44])) + b"zz", b"\x97", b"N\x98",
                b"\x8a" + bytes([9]) + number.to_bytes(27, "little", signed=True)[:9],
            ]
        )  # fmt: skip

    def name(self) -> bytes:
        """Push a name, by one of two instructions."""
        draw = self.draw
        module, _, last = draw.choice(CALLABLES).rpartition(".")
        if draw.random() < 0.05:
            module, last = (
                "".join(chr(draw.randrange(1, 0x250)) for _ in range(5)),
                draw.choice(["a.b", "__class__", "é"]),
            )
        if draw.random() < 0.5:
            return b"c" + module.encode() + b"\n" + last.encode() + b"\n"
        return b"".join(b"\x8c" + bytes([len(part.encode())]) + part.encode() for part in (module, last)) + b"\x93"

    def arguments(self, depth: int) -> bytes:
        count = self.draw.randrange(4)
        if count and self.draw.random() < 0.5:
            return b"".join(self.value(depth + 1) for _ in range(count)) + (b")", b"\x85", b"\x86", b"\x87")[count]
        return b"(" + b"".join(self.value(depth + 1) for _ in range(count)) + self.draw.choice([b"t", b"t", b"l", b"d"])

    def call(self, depth: int) -> bytes:
        """A call in each of the ways that a pickle has."""
        draw, code = self.draw, f"__import__('os').system('touch {self.marker}')"
        module, _, last = draw.choice(CALLABLES).rpartition(".")
        inner = b"".join(self.value(depth + 1) for _ in range(draw.randrange(3)))
        return draw.choice(
            (
                lambda: self.name() + self.arguments(depth) + b"R",
                lambda: b"cbuiltins\neval\n(S" + repr(code).encode() + b"\ntR",
                lambda: b"cposix\nsystem\n(S" + repr(f"touch {self.marker}").encode() + b"\ntR",
                lambda: self.name() + self.arguments(depth) + b"\x81",
                lambda: self.name() + b")\x81" + self.value(depth + 1) + b"b",
                lambda: self.name() + self.arguments(depth) + b"}\x92",
                lambda: b"(" + inner + b"i" + module.encode() + b"\n" + last.encode() + b"\n",
                lambda: b"(" + self.name() + inner + b"o",
                lambda: draw.choice([b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"]),
                lambda: b"P" + draw.choice([b"0", b"storage", code.encode()]) + b"\n",
                lambda: self.arguments(depth) + b"Q",
                lambda: b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
                + self.atom() + b"tQ",
            )
        )()  # fmt: skip

    def holder(self, depth: int) -> bytes:
        """A list, a dictionary, a set, filled by each instruction."""
        draw, parts = self.draw, [self.value(depth + 1) for _ in range(self.draw.randrange(4) * 2)]
        inside = b"".join(parts)
        start = draw.choice([b"]", b"}", b"\x8f", b"ccollections\nOrderedDict\n)R"])
        return draw.choice([b"(" + inside + draw.choice([b"l", b"d", b"t", b"\x91"]), start + b"(" + inside + draw.choice([b"e", b"u", b"\x90"]), start + b"".join(p + b"a" for p in parts[:2])])  # fmt: skip

    def filled(self, depth: int) -> bytes:
        """A layer with a state of the file's choice."""
        key = self.draw.choice(["forward", "__class__", "__setstate__", "_modules", "training", "__dict__", "a b"])
        state = b"}" + b"S" + repr(key).encode() + b"\n" + self.value(depth + 1) + b"s"
        return b"ctorch.nn.modules.container\nSequential\n)\x81" + state + b"b" * self.draw.randrange(1, 3)

    def remembered(self, depth: int) -> bytes:
        """Tuples that hold each other, by the memo: small in the file, without end where they are compared or shown."""
        steps = self.draw.choice([2, 30, 60])
        body = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(steps))
        return self.draw.choice(
            [body, b"}" + body + b"Ns", b"(" + body + b"\x91", body + b"0" + b"h\x01", b"\x8f(" + body + b"\x90"]
        )

    def odd(self, depth: int) -> bytes:
        inner = self.value(depth + 1)
        return self.draw.choice([inner + b"2" + b"0", inner + b"p5\n", inner + b"\x94", inner + b"r\x05\x00\x00\x00", b"g99\n", b"j\xff\xff\xff\x7f", b"(1" + inner, b"0" + inner, b"]" + b"h\x00" * 2 + b"e" + inner])  # fmt: skip


def damaged(draw: random.Random, content: bytes) -> bytes:
    """The same with a few bytes changed, cut off, or put in."""
    found = bytearray(content)
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(len(found) + 1)
        change = draw.randrange(4)
        if change == 0 and place < len(found):
            found[place] = draw.randrange(256)
        elif change == 1:
            del found[place : place + draw.randrange(1, 20)]
        elif change == 2:
            found[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
        else:
            found[place:] = found[place:] if draw.random() < 0.7 else b""
    return bytes(found)


def description(draw: random.Random, marker: str) -> dict[str, Any]:
    """A small model YAML with one to three things in it replaced."""
    made: dict[str, Any] = {
        "nc": 2,
        "channels": 3,
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C2f", [8, True]], [-1, 1, "Conv", [16, 3, 2]]],
        "head": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[2], 1, "Detect", ["nc"]]],
    }
    code = code_text(draw, marker)
    for _ in range(draw.randrange(1, 4)):
        if not all(isinstance(made[part], list) and made[part] for part in ("backbone", "head")):
            return made
        entry = draw.choice(made["backbone"] + made["head"])
        if not isinstance(entry, list) or len(entry) != 4 or not isinstance(entry[3], list):
            return made
        odd = draw.choice([code, 10**9, 10**400, -5, 0, 1.5, float("inf"), float("nan"), None, True, "", [], {}, "\x1b[2J", "nc", [[[[1]]]], [code], "x" * 5000, 65536, 1000, 64])  # fmt: skip
        what = draw.randrange(8)
        if what == 0:
            entry[2] = draw.choice(network_names() + CALLABLES + [code, "nn." + code, "torchvision.ops." + code])
            if draw.random() < 0.6:
                entry[3] = [draw.choice([copy.deepcopy(made), code, 8, odd])]
        elif what == 1:
            entry[draw.randrange(4)] = odd
        elif what == 2:
            entry[3] = [*entry[3], odd] if draw.random() < 0.5 else [odd, *entry[3][1:]]
        elif what == 3:
            made["activation"] = code
        elif what in (4, 5):
            keys = "nc channels ch scales scale depth_multiple width_multiple kpt_shape reg_max end2end text_model yaml names"
            made[draw.choice(keys.split())] = draw.choice([odd, {"n": [odd, 1, 8]}, {code: [1, 1, 8]}, [odd, 3]])
        elif what == 6:
            made[draw.choice(["backbone", "head", code])] = odd
        else:
            made["backbone"] = made["backbone"][:1] * draw.choice([1, 3, 2000])
    return made


def code_text(draw: random.Random, marker: str) -> str:
    """Text that runs where it is evaluated, or handed to a shell."""
    run = f"__import__('os').system('touch {marker}')"
    return draw.choice(
        [
            run, f"[{run}, torch.nn.SiLU()][1]", f"nn.ReLU({run})", f"torch.nn.ReLU(inplace={run})", f"nn.ReLU() if {run} else 0",
            f"nn.Module.__class__.__base__.__subclasses__() or {run}", f"torch.nn.modules.torch.os.system('touch {marker}')",
            f"nn.Sequential({run})", "nn.Softplus(10**10**10)", "(" * 300, f"lambda: {run}", f"nn.ReLU().__init__({run})",
            f"touch {marker}", f"; touch {marker}", f"$(touch {marker})", "nn.ReLU(\x00)", "nn.Threshold(1, 2)", f"torch.hub.load({run})",
        ]
    )  # fmt: skip


_NAMES: list[str] = []


def network_names() -> list[str]:
    """Every name that ``parse_model`` could look up."""
    if not _NAMES:
        import torchvision
        from torch import nn
        from ultralytics.nn import tasks

        _NAMES.extend(sorted(vars(tasks)))
        _NAMES.extend(f"nn.{name}" for name in sorted(vars(nn)))
        _NAMES.extend(f"torchvision.ops.{name}" for name in sorted(vars(torchvision.ops)))
    return _NAMES


TEXTS = (
    "a: &a [1]\nb: [*a, *a]", "{" * 2000, "[" * 90_000, "- " * 5000, "x: " + "1:" * 9000 + "1", "!!python/object/apply:os.system [touch MARK]",
    "!!python/name:os.system", "x: 0x" + "f" * 9000, "x: .inf", "? [a, b]\n: c", "<<: 1", "\0", "%TAG ! x", "a: 2000-99-99", "x: !!timestamp 1",
    "x: !!int ''", "x: !!float ''", "x: !!binary '" + "A" * 99, "!!set {a, b}", "&" * 999, "'" * 9999, "\x1b]0;x\x07", "\ufeff", "a:\n" * 3000,
)  # fmt: skip


def yaml_text(draw: random.Random, marker: str, made: Any) -> str:
    """A YAML of this, sometimes with something that a reader stumbles over."""
    if draw.random() < 0.15:
        return draw.choice(TEXTS).replace("MARK", marker)
    text = yaml.safe_dump(made)
    return text + "\n" + draw.choice(TEXTS).replace("MARK", marker) if draw.random() < 0.1 else text


def data_yaml(draw: random.Random, marker: str) -> dict[str, Any]:
    """A data YAML whose images are not there, with a script to fetch them."""
    script = draw.choice(
        [f"import os; os.system('touch {marker}')", f"bash touch {marker}", "https://localhost:1/a.zip"]
    )
    made: dict[str, Any] = {"path": ".", "train": "images", "val": "nowhere", "names": ["a", "b"], "download": script}
    for _ in range(draw.randrange(3)):
        odd = draw.choice([10**9, 10**30, float("inf"), float("nan"), -1, 0, None, True, "", [], {}, "\x1b[2J", [[1]], {"a": 1}, "x" * 9000, code_text(draw, marker), [3.5], {10**18: "a"}, "/dev/zero", "\0"])  # fmt: skip
        made[draw.choice("path train val test names nc channels kpt_shape flip_idx masks_dir kpt_names".split())] = odd
    return made


def plan_text(draw: random.Random) -> str:
    """The JSON of a plan with something replaced."""
    layer: dict[str, Any] = {"name": "a", "position": 0, "channels": 8, "keep": [0, 3]}
    made: dict[str, Any] = {
        "format": 1,
        "inputs": [{"shape": [1, 3, 8, 8], "dtype": "torch.float32"}],
        "layers": [layer],
    }
    odd = draw.choice(
        [None, -1, 1.5, 10**30, True, "\x1b[2J", "a", [], {}, [[1]], [10**30], "Infinity", [None], {"a": 1}]
    )
    owner = draw.choice([layer, made, made["inputs"][0]])
    owner[draw.choice(sorted(owner))] = odd
    text = json.dumps(made)
    change = draw.randrange(6)
    if change == 0:
        text = text.replace(
            draw.choice(["8", "0", "1"]), draw.choice(["Infinity", "NaN", "1e999", "9" * 5000, "-Infinity"])
        )
    elif change == 1:
        text = draw.choice(["[", '{"a":', '{"format": 1, "layers": [']) * draw.choice([10, 100_000]) + text
    elif change == 2:
        text = text[: draw.randrange(len(text))]
    return text


def plain(found: object) -> bytes:
    """A harmless pickle."""
    return pickle.dumps(found, 2)
