"""Facts about families of networks: attributes that repeat a width, and outputs that only lend their shape.

A pruned module keeps its class and its code; code that splits a tensor by such an attribute would cut in
the wrong place unless the attribute follows the layer. Plain data: nothing is imported here.

Listed are the modules whose ``forward`` or ``forward_split`` (which the exporter puts in the place of
``forward``) reads the attribute, by exact class name, and only where the rule holds whatever is pruned.
Left out on purpose: the attention modules and ``CBLinear.c2s``, which no single width tells (their stand-ins in
``seqprune.graph.standins`` do).
"""

from __future__ import annotations

_BLOCK = "ultralytics.nn.modules.block."

# Both halves of the first convolution's output are equally wide.
_HALF_OF_CV1: dict[str, tuple[str, int]] = {"c": ("cv1.conv", 2)}

WIDTH_ATTRIBUTES: dict[str, dict[str, tuple[str, int]]] = {
    _BLOCK + name: dict(_HALF_OF_CV1)
    for name in (
        "C2f",
        "C2fAttn",
        "C2fCIB",
        "C2fPSA",
        "C2PSA",
        "C3k2",
        "ELAN1",
        "PSA",
        "RepNCSPELAN4",
    )
} | {_BLOCK + "ADown": {"c": ("cv1.conv", 1)}, _BLOCK + "C3x": {"c_": ("cv1.conv", 1)}}  # written, never read
"""Class -> attribute -> (submodule, divisor): ``module.c = module.cv1.conv.out_channels // 2``."""

SHAPE_ONLY_OUTPUTS: dict[str, frozenset[str]] = {
    f"ultralytics.nn.tasks.{network}": frozenset({"feats"})
    for network in (
        *("DetectionModel", "SegmentationModel", "PoseModel", "OBBModel"),
        *("WorldModel", "YOLOEModel", "YOLOESegModel"),
    )
}
"""What the head reads, returned beside its predictions; every loss takes only heights and widths from it."""

ONE_CONVOLUTION: dict[str, str] = {"ultralytics.nn.modules.conv.Conv": "conv"}
"""Class -> submodule: a convolution that gets all of the class's only input, which nothing else in it reads."""

READ_TOGETHER: dict[str, tuple[str, str, int]] = {
    _BLOCK + "C2f": ("m", "cv2.conv", 2),
    _BLOCK + "A2C2f": ("m", "cv2.conv", 1),
}
"""Class -> a list of modules that run one after the other, the convolution that alone reads the outputs of all side by
side, and how many tensors as wide stand before them. Subclasses that run its ``forward`` are meant too."""
