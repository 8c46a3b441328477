"""``seqprune demo``: the whole job on a small detector and scenes made on the spot."""

from __future__ import annotations

from pathlib import Path

from seqprune.demo import weights_path, write_scenes
from seqprune.engine.listener import Listener
from seqprune.run import PruneResult, prune

SIZE = 128
TRAIN, VAL = 600, 200
BLOCKS = tuple(range(1, 10))
LAYERS = 6
EPOCHS = 8
# Mirrored digits are other digits, and a trained detector needs no strong augmentation to recover.
TRAINING = {
    "lr0": 1e-3,
    "nbs": 16,
    "warmup_epochs": 0,
    "mosaic": 0,
    "fliplr": 0,
    "scale": 0.2,
    "erasing": 0,
    "hsv_h": 0,
    "hsv_s": 0,
    "hsv_v": 0,
}


def demo(
    folder: Path, *, seed: int = 0, listener: Listener | None = None, finetune: int = EPOCHS, val: bool = True
) -> PruneResult:
    """Prunes the digit detector in several dependent layers, front to back, and fine-tunes it briefly.

    Args:
        folder: where the scenes are written.
        seed: of the scenes, the selection and the fine-tuning.
        listener: told what is going on.
        finetune: epochs over the training scenes in the pruned shape.
        val: whether accuracy is measured.
    """
    told = listener or Listener()
    told.stage(f"make {TRAIN} + {VAL} scenes of handwritten digits", None)
    data = write_scenes(folder / "digits", train=TRAIN, val=VAL, size=SIZE, seed=seed)
    return prune(
        weights_path(),
        data,
        preset="activation",
        layers=LAYERS,
        blocks=BLOCKS,
        imgsz=SIZE,
        batch=16,
        finetune=finetune,
        training=TRAINING,
        seed=seed,
        val=val,
        val_steps=val,
        listener=told,
    )
