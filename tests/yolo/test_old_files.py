"""Tensors of both formats come back as they were; the format of old is taken apart, every number from both sides."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seqprune.yolo.files.archive import Damaged
from seqprune.yolo.files.known import Refused, meaning
from seqprune.yolo.files.unpickle import read

DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex128 complex64".split()
VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "whole": lambda x: x,
    "turned": lambda x: x.permute(2, 0, 1),
    "a part": lambda x: x[1:, ::2, 1],
    "one value": lambda x: x[1, 2, 3],
    "none": lambda x: x[:, 1:1],
    "one side of one": lambda x: x[:, None, :, :1],
}


@pytest.mark.parametrize("is_old", [False, True], ids=["archive", "old"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_view_of_any_kind_comes_back(dtype: str, is_old: bool) -> None:
    whole = (torch.arange(24).reshape(2, 3, 4) % 5).to(getattr(torch, dtype))
    views = {name: view(whole) for name, view in VIEWS.items()}
    file = io.BytesIO()
    torch.save(views, file, _use_new_zipfile_serialization=not is_old)
    found = read(io.BytesIO(file.getvalue()))
    for name, view in views.items():
        assert torch.equal(found[name], view)
        assert (found[name].dtype, found[name].stride()) == (view.dtype, view.stride())
    assert found["turned"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


def test_whether_it_is_trained_comes_back() -> None:
    layer, file = nn.Linear(2, 3), io.BytesIO()
    layer.bias.requires_grad_(False)
    saved = [layer.weight, layer.bias, torch.ones(2, requires_grad=True), torch.ones(2)]
    torch.save(saved, file)
    found = read(io.BytesIO(file.getvalue()))
    assert [type(tensor) for tensor in found] == [type(tensor) for tensor in saved]
    assert [tensor.requires_grad for tensor in found] == [True, False, True, False]


def held(values: int = 6, dtype: torch.dtype = torch.float32) -> Any:
    return torch.storage.TypedStorage(
        wrap_storage=torch.arange(values).to(dtype).untyped_storage(), dtype=dtype, _internal=True
    )


def tensor(*arguments: Any, of: Any = None) -> torch.Tensor:
    make = meaning("torch._utils", "_rebuild_tensor_v2").call
    made: torch.Tensor = make(held() if of is None else of, *arguments)
    return made


@pytest.mark.parametrize(
    ("offset", "size", "stride", "values"),
    [
        (0, (2, 3), (3, 1), [[0, 1, 2], [3, 4, 5]]),
        (0, (3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
        (2, (2, 2), (2, 1), [[2, 3], [4, 5]]),
        (5, (), (), 5),
        (0, (1, 6), (999, 1), [[0, 1, 2, 3, 4, 5]]),
        (0, (2, 3, 1), (3, 1, 2), [[[0], [1], [2]], [[3], [4], [5]]]),
        (3, (1, 2), (0, 1), [[3, 4]]),
        (99, (2, 0), (1, 1), [[], []]),
        (0, (0, 2**48 - 1), (1, 1), []),
        (5, (1,) * 16, (1,) * 16, None),
    ],
)
def test_a_tensor_over_what_the_file_holds(offset: int, size: Any, stride: Any, values: Any) -> None:
    made = tensor(offset, size, stride)
    assert tuple(made.shape) == size
    assert made.requires_grad is False
    assert values is None or made.tolist() == values


@pytest.mark.parametrize(
    ("offset", "size", "stride", "said"),
    [
        (0, (2, 3), (3,), "no shape"),
        (0, (1,) * 17, (1,) * 17, "no shape"),
        (-1, (2,), (1,), "no shape"),
        (0, (-1,), (1,), "no shape"),
        (0, (2,), (-1,), "no shape"),
        (0, (True,), (1,), "no shape"),
        (0.0, (2,), (1,), "no shape"),
        (0, (0, 2**48), (1, 1), "no shape"),
        (0, (2, 3), (1, 1), "repeats its values"),
        (0, (2, 3), (2, 1), "repeats its values"),
        (0, (2, 2), (0, 1), "repeats its values"),
        (0, (3, 2), (1, 2), "repeats its values"),
        (1, (6,), (1,), "needs 7 values where the file holds 6"),
        (0, (2, 3), (4, 1), "needs 7 values where the file holds 6"),
        (6, (), (), "needs 7 values where the file holds 6"),
    ],
)
def test_a_tensor_over_more(offset: Any, size: Any, stride: Any, said: str) -> None:
    with pytest.raises(Damaged, match=said):
        tensor(offset, size, stride)


def test_what_is_no_plain_tensor() -> None:
    for arguments, said in (((False, {0: print}), "hooks"), ((False, {}, {"a": 1}), "hooks")):
        with pytest.raises(Refused, match=said):
            tensor(0, (2,), (1,), *arguments)
    with pytest.raises(Refused, match="a tensor of a list"):
        tensor(0, (2,), (1,), of=[1, 2])
    trained = [tensor(0, (2,), (1,), given).requires_grad for given in (True, 1, "yes")]
    assert trained == [True, False, False]
    assert tensor(0, (2,), (1,), True, of=held(dtype=torch.complex64)).requires_grad
    assert not tensor(0, (2,), (1,), True, of=held(dtype=torch.int64)).requires_grad
    parameter: Any = meaning("torch._utils", "_rebuild_parameter").call
    assert [parameter(torch.ones(1), *given).requires_grad for given in ((), (True,), (1,))] == [True, True, False]
    with pytest.raises(Refused, match="a parameter with hooks"):
        parameter(torch.ones(1), True, {0: print})


MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def stored(key: str, count: int) -> bytes:
    """A pickle that is one storage of floats."""
    parts = (
        pickle.dumps("storage", 2)[2:-1],
        b"ctorch\nFloatStorage\n",
        *(pickle.dumps(p, 2)[2:-1] for p in (key, "cpu", count)),
    )
    return b"(" + b"".join(parts) + b"tQ"


def old(
    head: tuple[Any, ...] = (MAGIC, PROTOCOL, {"little_endian": True}),
    body: bytes = stored("7", 3) + stored("8", 0) + b"\x86",
    keys: Any = ("7", "8"),
    content: tuple[bytes, ...] = (struct.pack("<q3f", 3, 1, 2, 3), struct.pack("<q", 0)),
) -> io.BytesIO:
    pickles = [pickle.dumps(part, 2) for part in head]
    listed = pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2)
    return io.BytesIO(b"".join([*pickles, b"\x80\x02" + body + b".", listed, *content]))


def test_the_format_of_old(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(old().getvalue())
    for source in (old(), tmp_path / "m.pt"):
        three, nothing = read(source)
        assert (three.tolist(), nothing.tolist()) == ([1, 2, 3], [])
    again, part = read(old(body=stored("7", 3) + stored("7", 2) + b"\x86", keys=("7",)))
    assert again.data_ptr() == part.data_ptr()


def head(magic: int = MAGIC, protocol: int = PROTOCOL, order: Any = True) -> dict[str, Any]:
    return {"head": (magic, protocol, {"little_endian": order})}


def content(says: int, *values: float) -> tuple[bytes, ...]:
    return struct.pack(f"<q{len(values)}f", says, *values), struct.pack("<q", 0)


THREE = stored("7", 3)
OLD: dict[str, tuple[dict[str, Any], str]] = {
    "another number at its head": (head(MAGIC + 1), "no checkpoint of torch's"),
    "another protocol": (head(protocol=PROTOCOL + 1), "no checkpoint of torch's"),
    "big numbers first": (head(order=False), "as little-endian"),
    "another word for it": (head(order=1), "as little-endian"),
    "no word of it": ({"head": (MAGIC, PROTOCOL, [])}, "as little-endian"),
    "no list of storages": ({"keys": {"7": 0, "8": 0}}, "its list of tensors"),
    "a number for a storage": ({"keys": ("7", 8)}, "its list of tensors"),
    "a storage of nobody": ({"keys": ("7", "9")}, "its list of tensors"),
    "more in the file than was said": ({"content": content(4, 1, 2, 3, 4)}, "ends before"),
    "less in the file than was said": ({"content": content(2, 1, 2)}, "ends before"),
    "less in the file than it says": ({"content": content(3, 1, 2)[:1], "keys": ("7",)}, "ends before"),
    "as little in the file as it says": ({"content": content(2, 1, 2)[:1], "keys": ("7",)}, "ends before"),
    "a larger storage than the file": ({"body": stored("7", 999)}, "needs 3996 bytes, more than the file holds"),
    "two that are": ({"body": stored("7", 40) + stored("8", 40) + b"\x86"}, "needs 160 bytes, more than the file"),
    "more than was said before": ({"body": THREE + stored("7", 4) + b"\x86"}, "needs 16 bytes where the file holds 12"),
}


@pytest.mark.parametrize("case", OLD)
def test_an_old_file_that_disagrees_with_itself(case: str) -> None:
    changes, said = OLD[case]
    with pytest.raises(Damaged, match=said):
        read(old(**changes))
