"""The container of a checkpoint: which records it has, read with a size, none of them run.

``torch.load`` hands an archive that holds a program to ``torch.jit.load``, which runs it, and takes the size of a
storage from the pickle, whatever the record holds. So the records are taken out here: by torch's own reader, so that
what is looked at is what torch would see (an archive can have two lists of contents, and Python's ``zipfile`` reads the
other one), and each no larger than the file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seqprune.errors import ModelError, UntrustedError
from seqprune.plain import printable

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_PROGRAM = ("constants.pkl", "code/", "bytecode.pkl")


class Damaged(ModelError):
    """A checkpoint cannot be read; nothing in it asks for trust."""


@dataclass
class Records:
    """An archive's records.

    Attributes:
        pickled: The pickle itself.
    """

    path: str
    reader: Any
    pickled: bytes
    size: int
    storages: dict[str, torch.UntypedStorage] = field(default_factory=dict)

    def storage(self, key: str, wanted: int) -> torch.UntypedStorage:
        """The bytes of one storage, as many as its record has.

        Raises:
            Damaged: there is no such record, or it has fewer bytes than ``wanted``.
        """
        if key not in self.storages:
            name = f"data/{key}"
            _check_size(self.reader, name, self.size)
            held = _size(self.reader, name)
            self.storages[key] = (
                self.reader.get_storage_from_record(name, held, torch.UntypedStorage)._typed_storage()._untyped_storage
                if held
                else torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
            )
        storage = self.storages[key]
        if storage.nbytes() < wanted:
            raise Damaged(f"a tensor needs {wanted} bytes where the file holds {storage.nbytes()}")
        return storage


def open_archive(path: str | Path | io.BytesIO, size: int) -> Records:
    """Look into an archive as torch does.

    Args:
        path: The file, or its bytes.
        size: Its length in bytes.

    Raises:
        UntrustedError: it holds a program.
        Damaged: torch cannot read it, or a record is larger than the file.
    """
    _check_directory(path, size)
    reader: Any = torch._C.PyTorchFileReader(str(path) if isinstance(path, Path) else path)
    names = reader.get_all_records()
    _check_program(names)  # Python's reader may see other names
    if reader.has_record("byteorder") and _bytes(reader, "byteorder", size) != b"little":
        raise Damaged("its numbers are not written as little-endian; save it again on another machine")
    return Records(str(path), reader, _bytes(reader, "data.pkl", size), size)


def _check_program(names: list[str]) -> None:
    if program := next((name for name in names if name.startswith(_PROGRAM)), None):
        raise UntrustedError(
            f"is a TorchScript program, not a checkpoint: it holds {printable(program, 60)!r}; a TorchScript model has "
            "no layers to prune; give the .pt it was exported from"
        )


def _bytes(reader: Any, name: str, size: int) -> bytes:
    _check_size(reader, name, size)
    return bytes(reader.get_record(name))


def _size(reader: Any, name: str) -> int:
    return int(reader.get_record_size(name)) if hasattr(reader, "get_record_size") else len(reader.get_record(name))


def _check_size(reader: Any, name: str, size: int) -> None:
    """Torch's archives are not compressed: no record is larger than its file."""
    if _size(reader, name) > size:
        raise Damaged(f"its record {printable(name, 60)!r} is larger than the file")


def _check_directory(path: str | Path | io.BytesIO, size: int) -> None:
    """An archive has one list of contents, at its end, and no record of it is compressed.

    Checked before torch's reader opens it, which reads a record at once, however large it says that it is. A second
    list is a way to show one content to one reader and another to the next.
    """
    with open(path, "rb") if isinstance(path, str | Path) else io.BytesIO(path.getbuffer()) as file:
        file.seek(max(size - 98, 0))
        tail = file.read()
        if tail[-22:-18] != b"PK\5\6":
            raise Damaged("the archive is damaged, probably cut short in a copy or download; fetch it again")
        count, length, offset = struct.unpack("<HII", tail[-12:-2])
        end = size - 22
        if tail[-42:-38] == b"PK\6\7":  # the list of large archives: torch writes it always
            end = int(struct.unpack("<Q", tail[-34:-26])[0])
            if end != size - 98 or tail[:4] != b"PK\6\6":
                raise _two_lists()
            here, there = (count, length, offset), struct.unpack("<QQQ", tail[32:56])
            if any(small not in (full, most) for small, full, most in zip(here, there, _FULL, strict=True)):
                raise _two_lists()
            count, length, offset = there
        if offset + length != end:
            raise _two_lists()
        try:
            with zipfile.ZipFile(file) as seen:
                entries = seen.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
            raise Damaged(f"the archive is damaged ({printable(error)}); fetch it again") from error
    _check_program([entry.filename.partition("/")[2] for entry in entries])
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in entries):
        raise Damaged("the archive is compressed, which torch's are not; save it again with torch")


_FULL = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def _two_lists() -> UntrustedError:
    return UntrustedError(
        "is an archive whose lists of contents disagree: one reader would see a TorchScript program or other content "
        "where another sees a checkpoint; fetch it again from where it was made"
    )


def legacy(file: io.BytesIO, unpickle: Callable[[io.BytesIO, Any], Any], size: int) -> Any:
    """What a file holds that torch wrote before 1.6: pickles in a row, then the bytes of the storages.

    Args:
        file: The whole of it.
        unpickle: Reads one pickle, storages by a function of their key and number of bytes.
        size: Its length in bytes.

    Raises:
        Damaged: it is no such file.
    """
    if unpickle(file, None) != _MAGIC or unpickle(file, None) != _PROTOCOL:
        raise Damaged("it is no checkpoint of torch's")
    system = unpickle(file, None)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Damaged("its numbers are not written as little-endian")
    storages: dict[str, tuple[torch.UntypedStorage, int]] = {}
    taken = 0

    def storage(key: str, wanted: int, item: int) -> torch.UntypedStorage:
        nonlocal taken
        if key not in storages:
            taken += wanted
            if taken > size:
                raise Damaged(f"a tensor needs {wanted} bytes, more than the file holds")
            storages[key] = torch.UntypedStorage(wanted), item  # type: ignore[no-untyped-call]
        found = storages[key][0]
        if found.nbytes() < wanted:
            raise Damaged(f"a tensor needs {wanted} bytes where the file holds {found.nbytes()}")
        return found

    result = unpickle(file, storage)
    keys = unpickle(file, None)
    if not isinstance(keys, list) or any(key not in storages for key in keys):
        raise Damaged("its list of tensors is not that of its contents")
    for key in keys:
        found, item = storages[key]
        held = struct.unpack("<q", file.read(8))[0] * item
        content = file.read(found.nbytes())
        if held != found.nbytes() or len(content) != held:
            raise Damaged("it ends before its tensors do")
        if held:
            found.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8).untyped_storage())
    return result
