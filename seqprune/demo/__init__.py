"""What the demonstration needs, with nothing to download: scenes made on the spot and a small detector."""

from importlib.resources import files
from pathlib import Path

from .scenes import write_scenes

__all__ = ["config_path", "weights_path", "write_scenes"]


def weights_path() -> Path:
    """The trained detector: a YOLOv8 of ten digits that plain ``ultralytics.YOLO`` loads."""
    return Path(str(files(__name__) / "digits.pt"))


def config_path() -> Path:
    """The detector's architecture, from which ``ultralytics.YOLO`` builds it untrained."""
    return Path(str(files(__name__) / "digits.yaml"))
