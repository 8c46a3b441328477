"""The list of contents of an archive, byte by byte: whatever one reader could see otherwise than another is refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from seqprune.errors import UntrustedError
from seqprune.yolo.files.archive import Damaged, Records, open_archive

NUMBERS = torch.arange(6.0)


def saved() -> bytes:
    """As torch writes it: with the list of large archives before that of small ones."""
    file = io.BytesIO()
    torch.save({"a": NUMBERS, "b": torch.empty(0)}, file)
    raw = file.getvalue()
    assert raw[-98:-94] == b"PK\6\6"
    assert raw[-42:-38] == b"PK\6\7"
    assert raw[-22:-18] == b"PK\5\6"
    return raw


def changed(at: int, code: str, value: int) -> bytes:
    """The same with one number of its end, ``at`` bytes before the end, another."""
    raw = bytearray(saved())
    struct.pack_into(code, raw, len(raw) - at, value)
    return bytes(raw)


def opened(raw: bytes) -> object:
    return open_archive(io.BytesIO(raw), len(raw))


def test_what_torch_writes_is_read() -> None:
    records = open_archive(io.BytesIO(raw := saved()), len(raw))
    assert records.storage("0", 24).nbytes() == 24
    assert records.storage("0", 1) is records.storages["0"]
    assert (
        torch.frombuffer(bytearray(bytes(records.storage("0", 24))), dtype=torch.float32).tolist() == NUMBERS.tolist()
    )
    assert records.storage("1", 0).nbytes() == 0
    with pytest.raises(Damaged, match="needs 25 bytes where the file holds 24"):
        records.storage("0", 25)


def test_a_small_archive_without_the_list_of_large_ones_is_read(tmp_path: Path) -> None:
    """As other tools pack a checkpoint anew."""
    with zipfile.ZipFile(io.BytesIO(saved())) as old, zipfile.ZipFile(tmp_path / "x.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    raw = (tmp_path / "x.pt").read_bytes()
    assert raw[-42:-38] != b"PK\6\7"
    assert open_archive(tmp_path / "x.pt", len(raw)).storage("0", 24).nbytes() == 24


END, LOCATOR, LARGE = 22, 42, 98
LISTS: dict[str, bytes] = {
    "another number of entries": changed(END - 10, "<H", 3),
    "another length": changed(END - 12, "<I", 3),
    "another place": changed(END - 16, "<I", 3),
    "a locator that points elsewhere": changed(LOCATOR - 8, "<Q", 7),
    "no record where it points": changed(LARGE, "<I", 0),
    "a longer list": changed(LARGE - 40, "<Q", 7),
    "a later list": changed(LARGE - 48, "<Q", 7),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_disagree(name: str) -> None:
    with pytest.raises(UntrustedError, match="lists of contents disagree"):
        opened(LISTS[name])


@pytest.mark.parametrize("cut", [1, 21, 22, 98])
def test_an_archive_that_is_cut_short(cut: int) -> None:
    with pytest.raises(Damaged, match="probably cut short"):
        opened(saved()[:-cut])
    with pytest.raises(Damaged, match="probably cut short"):
        opened(b"PK\5\6" + b"\0" * 17)


def test_a_name_that_one_reader_sees_otherwise() -> None:
    """Python's ``zipfile`` believes another name in an entry's extra field from 3.12 on; torch does not."""
    file, entry, shown = io.BytesIO(), zipfile.ZipInfo("x/constants.pkl"), b"x/data/0"
    entry.extra = struct.pack("<HHBL", 0x7075, 5 + len(shown), 1, zlib.crc32(b"x/constants.pkl")) + shown
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("x/data.pkl", b"N.")
        made.writestr("x/version", b"3")
        made.writestr(entry, b"N.")
    with pytest.raises(UntrustedError, match=r"is a TorchScript program.*'constants\.pkl'"):
        opened(file.getvalue())


def packed(how: int, **records: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in records.items():
            archive.writestr(f"x/{name}", content)
    return file.getvalue()


def test_something_before_the_archive() -> None:
    """Python's ``zipfile`` takes it for a program that opens itself, and counts from where it ends."""
    plain = packed(zipfile.ZIP_STORED, **{"data.pkl": b"N.", "version": b"3"})
    assert isinstance(opened(plain), Records)
    full = bytearray(saved())
    struct.pack_into("<II", full, len(full) - END + 12, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", full, len(full) - END + 10, 0xFFFF)
    assert isinstance(opened(bytes(full)), Records)  # all numbers are in the list of large archives alone
    struct.pack_into("<Q", full, len(full) - LARGE + 48, 7)
    elsewhere = bytearray(full)  # all of it agrees, but for where it lies
    struct.pack_into("<Q", elsewhere, len(full) - LARGE + 48, struct.unpack_from("<I", saved(), len(full) - 6)[0] - 8)
    struct.pack_into("<Q", elsewhere, len(full) - LOCATOR + 8, len(full) - LARGE - 8)
    for raw in (b"before" + plain, bytes(full), bytes(elsewhere)):
        with pytest.raises(UntrustedError, match="lists of contents disagree"):
            opened(raw)


def test_what_is_packed_as_torch_does_not() -> None:
    with pytest.raises(Damaged, match="is compressed, which torch's are not"):
        opened(packed(zipfile.ZIP_DEFLATED, data=b"0" * 1000))
    with pytest.raises(Damaged, match="is compressed, which torch's are not"):
        opened(packed(zipfile.ZIP_DEFLATED, data=b"0"))
    larger = bytearray(packed(zipfile.ZIP_STORED, data=b"0", other=b"1"))
    struct.pack_into("<II", larger, larger.index(b"PK\1\2") + 20, len(larger) + 1, len(larger) + 1)
    with pytest.raises(Damaged, match="is compressed, which torch's are not"):
        opened(bytes(larger))
    with pytest.raises(UntrustedError, match=r"is a TorchScript program.*'constants\.pkl'"):
        opened(packed(zipfile.ZIP_STORED, **{"constants.pkl": b""}))
    with pytest.raises(UntrustedError, match=r"is a TorchScript program.*'code/a\.py'"):
        opened(packed(zipfile.ZIP_STORED, **{"code/a.py": b""}))
    with pytest.raises(Damaged, match="not written as little-endian"):
        opened(packed(zipfile.ZIP_STORED, **{"data.pkl": b"x", "version": b"3", "byteorder": b"big"}))


def test_a_list_that_is_where_it_should_be_and_damaged() -> None:
    raw = bytearray(saved())
    raw[raw.index(b"PK\1\2")] = 0
    with pytest.raises(Damaged, match=r"the archive is damaged \(.+\); fetch it again"):
        opened(bytes(raw))
