"""Files of images and labels, looked at before Ultralytics touches them."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from seqprune.errors import DataError
from seqprune.plain import UnreadableError, text_of


@contextmanager
def untouched(im_file: str) -> Iterator[str]:
    """An image's file to check; a copy where Ultralytics would re-encode it in place."""
    if not _lacks_end(im_file):
        yield im_file
        return
    with tempfile.TemporaryDirectory() as folder:
        yield shutil.copy(im_file, folder)


def _lacks_end(im_file: str) -> bool:
    """Whether a file begins as a JPEG but does not end as one."""
    try:
        with open(im_file, "rb") as file:
            if file.read(2) != b"\xff\xd8":
                return False
            file.seek(-2, os.SEEK_END)
            return file.read() != b"\xff\xd9"
    except OSError:
        return False  # Ultralytics' own check says what is wrong


def check_class_ids(label_file: str, classes: int) -> None:
    """Raise DataError where a label file uses a class that the names do not have."""
    try:
        text = text_of(label_file)
    except UnreadableError:
        return  # no labels is no error, and unreadable ones are reported by Ultralytics' own check
    for line in text.splitlines():
        first = line.split(maxsplit=1)[:1]
        try:
            number = float(first[0]) if first else 0.0
        except ValueError:
            return
        if math.isfinite(number) and number == int(number) and not 0 <= number < classes:
            raise DataError(
                f"{label_file}: class id {int(number)} is not one of the {classes} classes "
                f"(0 to {classes - 1}); correct the label or the names in the data YAML"
            )
