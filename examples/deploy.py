"""Export a pruned detector to every runtime that is installed, and run it there.

ONNX Runtime, OpenVINO and TorchScript come with the extra `export`; NCNN with `pip install ncnn pnnx`, LiteRT with
`pip install litert-torch ai-edge-litert`.
"""

from importlib.util import find_spec
from pathlib import Path

from ultralytics import YOLO

import seqprune
from seqprune.demo import weights_path, write_scenes

data = write_scenes("scenes", train=32, val=8, size=128)
seqprune.prune(weights_path(), data=data, preset="fast", target="params=0.8", imgsz=128, val=False).save("pruned.pt")
image = sorted(Path("scenes/images/val").iterdir())[0]
needs = {
    "torchscript": ["torch"],
    "onnx": ["onnxruntime"],
    "openvino": ["openvino"],
    "ncnn": ["ncnn", "pnnx"],
    "litert": ["litert_torch", "ai_edge_litert"],
}
for kind, packages in needs.items():
    if missing := [package for package in packages if find_spec(package) is None]:
        print(f"{kind}: {missing[0]} is not installed")
        continue
    file = YOLO("pruned.pt").export(format=kind, imgsz=128)
    found = YOLO(file, task="detect").predict(image, imgsz=128, verbose=False)[0]
    print(f"{kind}: {Path(file).name}, {len(found.boxes)} objects")
