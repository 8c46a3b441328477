"""Preset activation: a few layers, front to back, by what their channels do at labelled objects."""

import seqprune
from seqprune.demo import weights_path, write_scenes

data = write_scenes("scenes", train=48, val=24, size=128)
result = seqprune.prune(weights_path(), data=data, preset="activation", layers=2, blocks=range(5, 10), imgsz=128)

for step in result.steps:
    print(f"{step.layer}: {step.active_after} of {step.channels} channels stay, one for each of {step.k} clusters")
print(f"mAP50-95 {result.before.map50_95:.3f} -> {result.after.map50_95:.3f}, not fine-tuned")
