"""A pickle instruction by instruction: what each may be given, what it makes of that, and what it refuses."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.functional import InterpolationMode
from torchvision.transforms.transforms import Compose
from ultralytics.utils import IterableSimpleNamespace

from seqprune.errors import UntrustedError
from seqprune.yolo.files import unpickle as room
from seqprune.yolo.files.archive import Damaged
from seqprune.yolo.files.known import Refused, Token
from seqprune.yolo.files.unpickle import RestrictedUnpickler, read

ASKED: list[tuple[str, int, int]] = []


def plain(value: object) -> bytes:
    """Instructions that push a value."""
    return pickle.dumps(value, 2)[2:-1]


def name(path: str) -> bytes:
    module, _, last = path.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(path: str, *arguments: object) -> bytes:
    return name(path) + plain(arguments) + b"R"


def made(path: str, state: object = None) -> bytes:
    """A new one without its constructor, and filled."""
    return name(path) + b")\x81" + (b"" if state is None else plain(state) + b"b")


def stored(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"tQ"


def storage(key: str, count: int, item: int) -> torch.UntypedStorage:
    ASKED.append((key, count, item))
    return torch.UntypedStorage(count)  # type: ignore[no-untyped-call]


def result(program: bytes) -> Any:
    ASKED.clear()
    return RestrictedUnpickler(io.BytesIO(program + b"."), storage).load()


LINEAR, FLOATS = "torch.nn.modules.linear.Linear", "torch.FloatStorage"
THREE = (plain("storage"), name(FLOATS), plain("7"), plain("cpu"), plain(3))


def without(at: int, *put: bytes) -> bytes:
    return stored(*THREE[:at], *put, *THREE[at + 1 :])


def test_a_storage_is_asked_for_by_its_record_and_its_bytes() -> None:
    for kind, dtype, item in (("Float", torch.float32, 4), ("Half", torch.float16, 2), ("Bool", torch.bool, 1)):
        found = result(without(1, name(f"torch.{kind}Storage")))
        assert (found.dtype, found.nbytes(), ASKED) == (dtype, 3 * item, [("7", 3 * item, item)])
    assert result(stored(*THREE, plain(None))).nbytes() == 12
    assert result(without(2, plain("1" * 20))).nbytes() == 12
    assert result(without(4, plain(0))).nbytes() == 0


NO_STORAGE: dict[str, tuple[bytes, type[Exception], str]] = {
    "a list": (plain(["storage"]) + b"Q", Damaged, "something that is no storage"),
    "nothing": (b")Q", Damaged, "something that is no storage"),
    "another word": (without(0, plain("tensor")), Damaged, "something that is no storage"),
    "a kind that is a text": (without(1, plain("FloatStorage")), Refused, "a storage of a str"),
    "a kind that holds nothing": (without(1, name(LINEAR)), Refused, f"a storage of a {LINEAR}"),
    "a view of another": (stored(*THREE, plain(("0", 1, 2))), Refused, "a storage of a torch.FloatStorage"),
    "a key that is a number": (without(2, plain(7)), Damaged, "without a number"),
    "a key that is a path": (without(2, plain("../7")), Damaged, "without a number"),
    "a key of two lines": (without(2, plain("7\n")), Damaged, "without a number"),
    "no key": (without(2, plain("")), Damaged, "without a number"),
    "a key too long": (without(2, plain("1" * 21)), Damaged, "without a number"),
    "fewer values than none": (without(4, plain(-1)), Damaged, "without a number"),
    "half a value": (without(4, plain(1.5)), Damaged, "without a number"),
    "a truth value": (without(4, plain(True)), Damaged, "without a number"),
    "a module without its class": (stored(plain("module"), plain("x"), *THREE[2:]), Refused, "a storage of a str"),
}


@pytest.mark.parametrize("case", NO_STORAGE)
def test_what_refers_to_no_storage(case: str) -> None:
    program, kind, said = NO_STORAGE[case]
    with pytest.raises(kind, match=said):
        result(program)
    assert not ASKED


def test_the_class_beside_its_source_that_old_checkpoints_hold_is_a_name() -> None:
    found = result(stored(plain("module"), name(LINEAR), plain("linear.py"), plain("class Linear: ...")))
    assert isinstance(found, Token)
    assert found.kind is nn.Linear


def test_pickles_before_the_contents_have_no_storages() -> None:
    with pytest.raises(Damaged, match="where there is none"):
        RestrictedUnpickler(io.BytesIO(stored(*THREE) + b".")).load()


MODE = "torchvision.transforms.functional.InterpolationMode"
SPACE = "ultralytics.utils.IterableSimpleNamespace"
GIVEN: dict[str, tuple[bytes, object]] = {
    "a member of an enumeration": (call(MODE, "bilinear"), InterpolationMode.BILINEAR),
    "the same by its name": (b"cbuiltins\ngetattr\n(" + name(MODE) + b"S'BILINEAR'\ntR", InterpolationMode.BILINEAR),
    "a namespace": (call(SPACE), IterableSimpleNamespace()),
    "bytes": (call("_codecs.encode", "\xe9", "latin1"), b"\xe9"),
    "bytes in any other code": (call("_codecs.encode", "a", "rot13"), b"a"),
    "bytes of old": (call("_codecs.encode", "a"), b"a"),
    "an array of bytes": (call("builtins.bytearray", b"ab"), bytearray(b"ab")),
    "an empty one": (call("builtins.bytearray"), bytearray()),
    "a set": (call("__builtin__.set", [1, (2, "a")]), {1, (2, "a")}),
    "a frozen set": (call("builtins.frozenset", [1]), frozenset({1})),
    "an ordered dictionary": (call("collections.OrderedDict", [("b", 1), ("a", 2)]), OrderedDict(b=1, a=2)),
    "what torch keeps on it": (call("collections.OrderedDict") + plain({"_metadata": {}}) + b"b", OrderedDict()),
    "a kind of numbers": (name("torch.float16"), torch.float16),
    "an order of dimensions": (name("torch.channels_last"), torch.channels_last),
    "a list": (b"]I1\naI2\na", [1, 2]),
    "a list in one": (b"](I1\nI2\ne", [1, 2]),
    "a dictionary": (b"}I1\nI2\ns(I3\nI4\nI5\nI6\nu", {1: 2, 3: 4, 5: 6}),
    "a text of Python 2": (b"U\x02\xc3\xa9", "\xe9"),
    "a dictionary of old": (b"(I1\nI2\nI3\nI4\nd", {1: 2, 3: 4}),
    "a set in one": (b"\x8f(I1\nI2\n\x90", {1, 2}),
    "a frozen set in one": (b"(I1\nI2\n\x91", frozenset({1, 2})),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_is_made(case: str) -> None:
    """A frozen set as protocol 4 writes it was lost, and with it the rest of the file."""
    program, expected = GIVEN[case]
    assert result(program) == expected
    assert type(result(program)) is type(expected)
    assert result(b"](I0\n" + program + b"e") == [0, expected]  # within another too


@pytest.mark.parametrize("text", ["f8", "<i4", "=f4", "|b1", "?", "S10", "U123", "c16", ">f8"])
def test_kinds_of_numbers_of_numpy(text: str) -> None:
    if text == ">f8":  # numpy itself writes the order apart
        with pytest.raises(Refused, match=r"numpy\.dtype\('>f8'\)"):
            result(call("numpy.dtype", text))
        with pytest.raises(Refused, match=r"a state for \w*[dD][tT]ype"):
            result(plain(np.dtype(text)))
        return
    assert result(call("numpy.dtype", text, False, True)) == np.dtype(text)
    assert result(plain(np.dtype(text))) == np.dtype(text)


@pytest.mark.parametrize("text", ["O", "V8", "S1234", "M8", "f8,f8", "(2,)f8", " f8", "f8\n", 8])
def test_kinds_that_could_hold_more_than_numbers(text: object) -> None:
    with pytest.raises(Refused, match=r"numpy\.dtype\("):
        result(call("numpy.dtype", text))


def test_forward_is_the_one_method_that_a_layer_may_be_given() -> None:
    for of, bound in ((name(LINEAR), False), (made(LINEAR), True)):
        method = result(b"cbuiltins\ngetattr\n(" + of + b"S'forward'\ntR")
        assert getattr(method, "__func__", method) is nn.Linear.forward
        assert isinstance(getattr(method, "__self__", None), nn.Linear) == bound
        with pytest.raises(Refused, match=r"builtins\.getattr\(\S*Linear, 'extra_repr'\)"):
            result(b"cbuiltins\ngetattr\n(" + of + b"S'extra_repr'\ntR")
    for of, key in ((name(MODE), "forward"), (name(MODE), "mro"), (plain("text"), "forward")):
        with pytest.raises(Refused, match=rf"builtins\.getattr\(.*, '{key}'\)"):
            result(b"cbuiltins\ngetattr\n(" + of + plain(key) + b"tR")


REFUSED: dict[str, tuple[bytes, str]] = {
    "a call of what is no name": (b"])R", "a call of list"),
    "a call with a list": (name("builtins.set") + b"]R", "a call of builtins.set"),
    "a call of a layer": (call(LINEAR), f"a call of {LINEAR}"),
    "a namespace with arguments": (call(SPACE, 1), f"a call of {SPACE}"),
    "an enumeration made anew": (call(MODE, "bilinear", 1), f"a call of {MODE}"),
    "an enumeration of nothing": (call(MODE), f"a call of {MODE}"),
    "a call of a storage": (call(FLOATS, 3), f"a call of {FLOATS}"),
    "a new one of what is no class": (name("builtins.set") + b")\x81", "a new builtins.set from arguments"),
    "a new one of a text": (plain("a") + b")\x81", "a new str from arguments"),
    "a new one with arguments": (name(LINEAR) + plain((1,)) + b"\x81", f"a new {LINEAR} from arguments"),
    "as many bytes as a number": (call("builtins.bytearray", 5), r"builtins.bytearray\(int\)"),
    "a state for a list": (b"]}b", "a state for list"),
    "a state that is a list": (made(LINEAR, [1]), "a list as the state of Linear"),
    "a byte order in a list": (call("numpy.dtype", "f4") + plain([3, "<"]) + b"b", "a state for Float32DType"),
    "a state with a number": (made(LINEAR, {1: 2}), "a state of Linear with int"),
    "a state with a dunder": (made(LINEAR, {"__class__": 2}), "a state of Linear with '__class__'"),
    "a state with a space": (made(LINEAR, {"a b": 2}), "a state of Linear with 'a b'"),
    "a state that shadows": (call("collections.OrderedDict") + plain({"items": 1}) + b"b", "a state for OrderedDict"),
    "an item of a layer": (made(LINEAR) + plain("a") + plain(1) + b"s", "items for a Linear"),
    "items of a layer": (made(LINEAR) + b"(" + plain("a") + plain(1) + b"u", "items for a Linear"),
    "an item of a name": (name(LINEAR) + b"I1\na", f"items for a {LINEAR}"),
    "items of a dictionary's kind": (b"}(I1\ne", "items for a dict"),
    "members of a list": (b"](I1\n\x90", "items for a list"),
    "a key of tuples": (b"}" + plain((1, (2, 3))) + b"Ns", "a tuple of tuples as a key"),
    "keys of tuples": (b"}(" + plain((1, (2, 3))) + b"Nu", "a tuple of tuples as a key"),
    "keys of tuples as of old": (b"(" + plain((1, (2, 3))) + b"Nd", "a tuple of tuples as a key"),
    "a key that is a set": (b"}(I1\n\x91Ns", "a frozenset of tuples as a key"),
    "a member of tuples": (b"\x8f(" + plain((1, (2, 3))) + b"\x90", "a tuple of tuples as a key"),
    "a frozen member of tuples": (b"(" + plain((1, (2, 3))) + b"\x91", "a tuple of tuples as a key"),
    "a set of tuples": (call("builtins.set", [(1, (2,))]), "a tuple of tuples as a key"),
    "an order of tuples": (call("collections.OrderedDict", [((1, (2,)), 3)]), "a tuple of tuples as a key"),
    "a parameter of a number": (call("torch._utils._rebuild_parameter", 1, True, None), "a parameter of a int"),
} | {
    f"the instruction {code}": (getattr(pickle, code) + rest, "an instruction that checkpoints do not use")
    for code, rest in {
        "INST": b"builtins\nset\n", "OBJ": b"", "NEWOBJ_EX": b"", "EXT1": b"\x01", "EXT2": b"\x01\x00",
        "EXT4": b"\x01\x00\x00\x00", "BYTEARRAY8": b"\x00" * 8, "NEXT_BUFFER": b"", "READONLY_BUFFER": b"",
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    program, said = REFUSED[case]
    with pytest.raises(Refused, match=said):
        result(program)


def archived(program: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "m.pt", "w") as file:
        file.writestr("m/data.pkl", program)
        file.writestr("m/version", "3\n")
    return folder / "m.pt"


@pytest.mark.parametrize(("limit", "most"), [("_PICKLE", 7), ("_STEPS", 6)])
def test_a_pickle_has_an_end(limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven bytes in six pieces: instructions, and a line."""
    path = archived(b"I1\n0NN.", tmp_path)
    monkeypatch.setattr(room, limit, most)
    assert read(path) is None
    monkeypatch.setattr(room, limit, most - 1)
    with pytest.raises(Damaged, match=r"its pickle is longer than"):
        read(path)


def held(kind: Any, key: str, value: object) -> Any:
    bare = kind.__new__(kind)
    vars(bare)[key] = value
    return bare


def layer(value: object) -> nn.Module:
    made = nn.Identity()
    vars(made)["held"] = value
    return made


BESIDE = [1]
WRAPS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "lists": (lambda inner: [inner], 121),
    "lists with something beside it": (lambda inner: [inner, BESIDE, BESIDE, 0], 121),
    "tuples": (lambda inner: (inner,), 121),
    "values": (lambda inner: {"a": inner}, 121),
    "namespaces": (lambda inner: IterableSimpleNamespace(a=inner), 121),
    "transforms": (lambda inner: held(Compose, "transforms", inner), 121),
    "layers": (layer, 120),  # whose own dictionaries are within the last
    "keys": (lambda inner: {layer(inner): 0}, 60),
    "sets": (lambda inner: {layer(inner)}, 60),
    "frozen sets": (lambda inner: frozenset({layer(inner)}), 60),
}


@pytest.mark.parametrize("name", WRAPS)
def test_nothing_is_nested_without_end(name: str, tmp_path: Path) -> None:
    wrap, most = WRAPS[name]
    value: Any = 0
    for _ in range(most):
        value = wrap(value)
    torch.save(value, tmp_path / "m.pt")
    assert type(read(tmp_path / "m.pt")) is type(value)
    torch.save(wrap(value), tmp_path / "m.pt")
    with pytest.raises(Damaged, match="nested without end"):
        read(tmp_path / "m.pt")


def test_what_holds_itself_is_looked_at_once(tmp_path: Path) -> None:
    value: list[Any] = [1]
    value.append(value)
    torch.save(value, tmp_path / "m.pt")
    assert read(tmp_path / "m.pt")[1][0] == 1


def test_a_refusal_names_the_file_and_what_it_was_made_with(tmp_path: Path) -> None:
    path = archived(name("ultralytics.models.yolo.model.YOLO") + b".", tmp_path)
    for source, named in ((path, str(path)), (io.BytesIO(path.read_bytes()), "the checkpoint")):
        with pytest.raises(UntrustedError, match="save the network alone, with its save") as caught:
            read(source)
        assert str(caught.value).startswith(f"{named}: holds ultralytics.models.yolo.model.YOLO")
    with pytest.raises(UntrustedError, match="call its remove"):
        read(archived(name("torch.nn.utils.prune.L1Unstructured") + b".", tmp_path))
    with pytest.raises(UntrustedError, match=r"may run code; if you trust"):
        read(archived(name("os.system") + b".", tmp_path))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("m/code/a.py", "")
    with pytest.raises(UntrustedError, match="TorchScript program") as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: is a TorchScript program")
    with pytest.raises(Damaged, match=r"m\.pt: cannot be unpickled \(EOFError\)"):
        read(archived(b"", tmp_path))
    with pytest.raises(Damaged, match=r"cannot be unpickled \([^()]{299}…\); it is damaged"):
        read(archived(call("torch.device", "x" * 400) + b".", tmp_path))
    with pytest.raises(Damaged, match="no such file"):
        read(tmp_path / "nothing.pt")
    (tmp_path / "m.pt").write_bytes(b"PK is a text")
    with pytest.raises(Damaged, match="it begins as no checkpoint does"):
        read(tmp_path / "m.pt")
