"""A data set with fewer images, for measuring often."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml  # type: ignore[import-untyped,unused-ignore]

from seqprune.yolo.data import DetectionImages


@contextmanager
def sampled(data: str | Path, images: int | None, seed: int = 0) -> Iterator[str | Path]:
    """A data YAML whose ``val`` images are a seeded sample of those of ``data``; ``data`` itself where None.

    The images stay where they are and are only listed, in a temporary folder. Ultralytics asks for ``train`` too: it is
    the same sample, nobody trains on it.

    Raises:
        DataError: the data or the number cannot be used.
    """
    if images is None:
        yield data
        return
    chosen = DetectionImages(data, split="val", images=images, seed=seed)
    with tempfile.TemporaryDirectory(prefix="seqprune-") as folder:
        listing, described = Path(folder, "sample.txt"), Path(folder, "data.yaml")
        listing.write_text("".join(f"{file}\n" for file in chosen.files), encoding="utf-8")
        description = {"train": str(listing), "val": str(listing), "names": chosen.names}
        described.write_text(yaml.safe_dump(description, allow_unicode=True), encoding="utf-8")
        yield described
