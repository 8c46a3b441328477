"""The classes of data and those of a network: alike, in part, or all of them as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ultralytics.utils import ROOT

from seqprune.errors import DataError
from seqprune.plain import text_of, yaml_of

ITEM = {0: "item"}
"""What Ultralytics names the one class of a network that was trained with ``single_cls``."""


def check_classes(data: Mapping[str, Any], classes: int, source: str) -> None:
    """Raise DataError unless the data set has as many classes as the model."""
    if len(data["names"]) != classes:
        raise DataError(
            f"{source} has {len(data['names'])} classes but the model has {classes}: "
            "they were not made for each other; use the data the model was trained for, or train it on these first, "
            "`seqprune finetune MODEL --data DATA --epochs 50`, and prune the best.pt that it leaves"
        )


def fitted(data: dict[str, Any], names: Mapping[int, str], source: str, *, some: bool = False) -> dict[str, Any]:
    """A description of data whose classes are counted as a network counts its own.

    Labels are taken as they are where there are as many classes. All are one class for a network that was trained with
    ``single_cls``.

    Args:
        data: Ultralytics' description.
        names: The network's class names.
        source: The data, for messages.
        some: Whether the network knows some of the data's classes only, by their names; objects of the others are left
            out.

    Returns:
        The description; where ids change, with ``class_ids`` (theirs to the network's) and ``label_classes`` (how many
        there are in the files).

    Raises:
        DataError: The classes do not fit.
    """
    theirs: Mapping[int, str] = data["names"]
    if len(theirs) == len(names):
        return data
    if dict(names) == ITEM:
        return _counted(data, names, dict.fromkeys(theirs, 0))
    by_name = {name: number for number, name in theirs.items()}
    if some and len(by_name) == len(theirs) and set(names.values()) <= set(by_name):
        return _counted(data, names, {by_name[name]: number for number, name in names.items()})
    check_classes(data, len(names), source)
    raise AssertionError("unequal counts are refused")


def _counted(data: dict[str, Any], names: Mapping[int, str], ids: Mapping[int, int]) -> dict[str, Any]:
    return data | {
        "names": dict(names),
        "nc": len(names),
        "class_ids": dict(ids),
        "label_classes": data.get("label_classes", len(data["names"])),
    }


def renumbered(label: dict[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """One image's labels with other class ids, those of no id left out.

    Args:
        label: Ultralytics' dictionary: ``cls`` and ``bboxes`` arrays of a row an object, ``segments`` a list,
            ``keypoints`` an array or None.
        ids: Old ids to new ones.
    """
    old: npt.NDArray[np.int64] = label["cls"].reshape(-1).astype(np.int64)
    stay = np.isin(old, list(ids))
    new = np.array([ids[number] for number in old[stay].tolist()], label["cls"].dtype).reshape(-1, 1)
    changed = {"cls": new, "bboxes": label["bboxes"][stay]}
    if label["segments"]:
        changed["segments"] = [part for part, kept in zip(label["segments"], stay, strict=True) if kept]
    if label["keypoints"] is not None:
        changed["keypoints"] = label["keypoints"][stay]
    return label | changed


def imagenet_codes() -> list[str]:
    """WordNet's codes of ImageNet's thousand classes, ``n01440764`` first, by class id."""
    described = yaml_of(text_of(ROOT / "cfg" / "datasets" / "ImageNet.yaml"))
    return sorted(described["map"])


def numbers_of(wanted: Collection[str | int], names: Mapping[int, str]) -> list[int]:
    """Ids of classes by name or number, in the order of the ids, each once.

    Raises:
        DataError: One of them is no class, or none was given.
    """
    by_name = {name: number for number, name in names.items()}
    found: set[int] = set()
    for word in wanted:
        text = str(word).strip()
        number = by_name.get(text, int(text) if text.isdecimal() else -1)
        if number not in names:
            known = ", ".join([*names.values()][:5]) + ", …" * (len(names) > 5)
            raise DataError(f"{text!r} is no class of the model: give names or numbers of its {len(names)}: {known}")
        found.add(number)
    if not found:
        raise DataError("no classes were named: give names or numbers with commas between")
    return sorted(found)
