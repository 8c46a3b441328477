"""A data YAML of the user's own: which keys of it are read, and what each may be.

Ultralytics would run the script under ``download``, and takes every other key as it comes. What is read here is handed
on, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seqprune.errors import DataError
from seqprune.plain import UnreadableError, is_number, is_whole, printable, text_of, yaml_of

_SPLITS = ("train", "val", "test", "minival")
_CLASSES = 100_000
_CHANNELS = 1_024
_POINTS = 10_000


def read(path: Path, needs: Sequence[str] = ("train", "val")) -> dict[str, Any]:
    """What a data YAML says of its images, its classes and its key points.

    Args:
        path: the YAML.
        needs: splits that it must have.

    Returns:
        ``path`` (the folder of the images), ``train`` and ``val`` where they are, ``names`` or ``nc``, and of ``test``,
        ``minival``, ``channels``, ``kpt_shape``, ``flip_idx`` and ``masks_dir`` what is there.

    Raises:
        DataError: it cannot be read, a key is missing, or one is not what it should be.
    """
    try:
        content = yaml_of(text_of(path))
    except UnreadableError as error:
        raise DataError(f"{path}: not a readable YAML file ({error}); correct it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no keys, so it is no data YAML; it needs train, val and names")
    if not content.get("val") and content.get("validation"):
        content["val"] = content["validation"]
    missing = [key for key in needs if not content.get(key)]
    if not (content.get("names") or content.get("nc")):
        missing.append("names")
    if missing:
        raise DataError(f"{path}: the key {' and '.join(missing)} is missing; a data YAML needs train, val and names")
    found = {key: content[key] for key in _KEYS if content.get(key) is not None}
    for key, value in found.items():
        is_right, wanted = _KEYS[key]
        if not is_right(value):
            raise DataError(f"{path}: {key}: {printable(value, 60)} is not {wanted}; correct it")
    root = Path(str(found.get("path") or path.parent))
    for key in _SPLITS:
        for value in found.get(key, []) if isinstance(found.get(key), list) else [found.get(key) or "images"]:
            if _is_everything((root / value).resolve()):
                raise DataError(f"{path}: {key}: {value} is no folder of a data set but the whole machine; correct it")
    if "nc" in found:
        found["nc"] = int(float(found["nc"]))
    if "names" in found:
        found["names"] = _shown(found["names"])
    found["path"] = str(found.get("path") or path.parent)
    return found


def _is_everything(folder: Path) -> bool:
    """Whether looking for images below would go through all files there are, or through what are none."""
    return len(folder.parts) == 1 or folder.parts[1:2] in [("proc",), ("sys",), ("dev",)]


def _shown(names: Any) -> Any:
    """The class names as they can be shown."""
    if isinstance(names, dict):
        return {number: printable(name, 300) for number, name in names.items()}
    return [printable(name, 300) for name in names]


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4096 and value.isprintable()


def _is_split(value: Any) -> bool:
    return _is_path(value) or (isinstance(value, list) and 0 < len(value) <= 10_000 and all(map(_is_path, value)))


def _are_names(value: Any) -> bool:
    if isinstance(value, dict):
        if not all(is_whole(number, 0, _CLASSES) for number in value):
            return False
        value = list(value.values())
    return (
        isinstance(value, list) and 0 < len(value) <= _CLASSES and all(isinstance(n, str | int | float) for n in value)
    )


def _is_count(value: Any) -> bool:
    """A number of classes: whole, also where it is written 10.0 or '10'."""
    try:
        number = float(value) if isinstance(value, int | float) or (isinstance(value, str) and len(value) < 20) else 0.0
    except ValueError:
        return False
    return number.is_integer() and 1 <= number <= _CLASSES


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and is_whole(value[0], 1, _POINTS) and value[1] in (2, 3)


def _are_points(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _POINTS and all(is_whole(one, 0, _POINTS) for one in value)


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "path": (_is_path, "the path of a folder"),
    **dict.fromkeys(_SPLITS, (_is_split, "a path or a list of paths")),
    "names": (_are_names, "a list of class names, or their ids (from 0) and names"),
    "nc": (_is_count, f"a number of classes up to {_CLASSES}"),
    "channels": (lambda value: is_whole(value, 1, _CHANNELS), f"a number of channels from 1 to {_CHANNELS}"),
    "kpt_shape": (_is_shape, "a number of points and 2 or 3"),
    "flip_idx": (_are_points, "a list of points"),
    "kpt_names": (lambda value: isinstance(value, dict) and len(value) <= _CLASSES, "names of points by class"),
    "kpt_oks_sigmas": (
        lambda value: (
            isinstance(value, list) and len(value) <= _POINTS and all(is_number(one, 0, 100) for one in value)
        ),
        "a list of numbers",
    ),
    "masks_dir": (_is_path, "the path of a folder"),
}
