"""The model YAMLs that Ultralytics ships."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ultralytics
import yaml

DETECTORS = ("Detect", "v10Detect", "WorldDetect", "RTDETRDecoder")
_SMALL = ("yolov3-tiny", "yolov9t", "yolov10n")
"""The smallest of families whose sizes are files of their own."""


def smallest_detectors() -> list[str]:
    """Names of detectors, one a family and kind, at scale n or the smallest there is, as ``YOLO`` takes them."""
    found = []
    for path in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml")):
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        if content["head"][-1][2] not in DETECTORS:
            continue
        family, kind = re.match(r"(yolov?\d+)?(.*)", path.stem).groups()  # type: ignore[union-attr]
        if path.stem in _SMALL:
            found.append(path.stem)
        elif "n" in content.get("scales", {}) and (not kind or kind.startswith("-")):
            found.append(f"{family}n{kind}")
    return found
