"""Every limit of a description, from both sides: what is allowed at it, what is refused one step beyond."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn
from ultralytics.nn import tasks

from seqprune.errors import UntrustedError
from seqprune.yolo.files.description import check_description, layer_of

CONV = [-1, 1, "Conv", [8]]


def layer(*changes: tuple[int, Any]) -> dict[str, Any]:
    entry: list[Any] = list(CONV)
    for at, value in changes:
        entry[at] = value
    return {"backbone": [entry]}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "classes, least": ({"nc": 1}, {"nc": 0}, "nc: 0"),
    "classes, most": ({"nc": 100_000}, {"nc": 100_001}, "nc: 100001"),
    "channels, least": ({"channels": 1}, {"channels": 0}, "channels: 0"),
    "channels, most": ({"channels": 1024}, {"channels": 1025}, "channels: 1025"),
    "channels by their short name, least": ({"ch": 1}, {"ch": 0}, "ch: 0"),
    "channels by their short name": ({"ch": 1024}, {"ch": 1025}, "ch: 1025"),
    "bins, least": ({"reg_max": 1}, {"reg_max": 0}, "reg_max: 0"),
    "bins, most": ({"reg_max": 256}, {"reg_max": 257}, "reg_max: 257"),
    "a whole number": ({"nc": None}, {"nc": 2.5}, "no whole number"),
    "no truth value": ({"nc": 2}, {"nc": True}, "no whole number"),
    "depth, most": ({"depth_multiple": 16}, {"depth_multiple": 16.5}, "depth_multiple"),
    "depth, least": ({"depth_multiple": 0}, {"depth_multiple": -0.5}, "depth_multiple"),
    "width, most": ({"width_multiple": 16.0}, {"width_multiple": 17}, "width_multiple"),
    "width is a number": ({"width_multiple": 0}, {"width_multiple": None}, "width_multiple"),
    "scales": ({"scales": {"n": [16, 16, 65536]}}, {"scales": {"n": [16, 16, 65537]}}, "scales"),
    "scales, depth": ({"scales": {"n": [0, 0, 1]}}, {"scales": {"n": [17, 1, 1]}}, "scales"),
    "scales, width": ({"scales": {"n": (1, 1, 1)}}, {"scales": {"n": (1, 17, 1)}}, "scales"),
    "scales, channels": ({"scales": {"n": [1, 1, 1]}}, {"scales": {"n": [1, 1, 0]}}, "scales"),
    "scales of three": ({"scales": None}, {"scales": {"n": [1, 1]}}, "scales"),
    "scales are rows": ({"scales": {}}, {"scales": {"n": 3}}, "scales"),
    "scales by name": ({"scales": {"n" * 20: [1, 1, 1]}}, {"scales": {"n" * 21: [1, 1, 1]}}, "scales"),
    "names that are texts": ({"scales": {"n": [1, 1, 1]}}, {"scales": {3: [1, 1, 1]}}, "scales"),
    "scales are a mapping": ({"scales": {"n": [1, 1, 1]}}, {"scales": [[1, 1, 1]]}, "scales"),
    "a scale of them": (
        {"scales": {"n": [1, 1, 1]}, "scale": "n"},
        {"scales": {"n": [1, 1, 1]}, "scale": "m"},
        "none of its scales",
    ),
    "a scale without any": ({"scale": "m"}, {"scale": "m\x1b"}, "scale"),
    "points, most": ({"kpt_shape": [10_000, 3]}, {"kpt_shape": [10_001, 3]}, "kpt_shape"),
    "points, least": ({"kpt_shape": (1, 2)}, {"kpt_shape": (0, 2)}, "kpt_shape"),
    "two or three values": ({"kpt_shape": [17, 3]}, {"kpt_shape": [17, 4]}, "kpt_shape"),
    "a pair": ({"kpt_shape": None}, {"kpt_shape": [17]}, "kpt_shape"),
    "a list": ({"kpt_shape": [17, 2]}, {"kpt_shape": 17}, "kpt_shape"),
    "text model": ({"text_model": "mobileclip:blt"}, {"text_model": "mobileclip:other"}, "text_model"),
    "text": ({"note": "n" * 4096}, {"note": "n" * 4097}, "note"),
    "key": ({"k" * 100: 1}, {"k" * 101: 1}, "not a name"),
    "layers": (
        {"backbone": [CONV] * 600, "head": [CONV] * 400},
        {"backbone": [CONV] * 600, "head": [CONV] * 401},
        "1001",
    ),
    "lists of layers": ({"head": []}, {"head": {}}, "head in the model's YAML: not a list of layers"),
    "an entry of four": ({"backbone": [tuple(CONV)]}, {"backbone": [CONV[:3]]}, r"not \[from"),
    "an entry of no more": ({"backbone": [CONV]}, {"backbone": [[*CONV, 1]]}, r"not \[from"),
    "an entry that is one": ({"backbone": [CONV]}, {"backbone": [7]}, r"not \[from"),
    "an entry that is no text": ({"backbone": [CONV]}, {"backbone": ["Conv"]}, r"not \[from"),
    "sources, first": (layer((0, 1000)), layer((0, 1001)), "no layers' numbers"),
    "sources, last": (layer((0, -1000)), layer((0, -1001)), "no layers' numbers"),
    "sources, many": (layer((0, [1] * 100)), layer((0, [1] * 101)), "no layers' numbers"),
    "sources, none": (layer((0, [1])), layer((0, [])), "no layers' numbers"),
    "sources are numbers": (layer((0, (1, 2))), layer((0, [1, "2"])), "no layers' numbers"),
    "repeats, least": (layer((1, 1)), layer((1, 0)), "Conv 0 times"),
    "repeats, most": (layer((1, 1000)), layer((1, 1001)), "1001 times"),
    "arguments": (layer((3, (8, 3))), layer((3, 8)), "no list of arguments"),
    "arguments in lists": (layer((3, deep(4))), layer((3, deep(5))), "a list too long"),
    "arguments in long lists": (layer((3, [[1] * 100])), layer((3, [[1] * 101])), "a list too long"),
    "arguments, most": (layer((3, [65_536])), layer((3, [65_537])), "neither a number nor a word"),
    "arguments, least": (layer((3, [-65_536])), layer((3, [-65_537])), "neither a number nor a word"),
    "words": (layer((3, ["nearest", None, True])), layer((3, ["nearer"])), "no word of a layer's"),
    "words of one layer alone": (layer((2, "TorchVision"), (3, ["DEFAULT"])), layer((3, ["DEFAULT"])), "no word"),
    "architectures of classifiers": (
        layer((2, "TorchVision"), (3, ["resnet18"])),
        layer((2, "TorchVision"), (3, ["fasterrcnn_resnet50_fpn"])),
        "no word",
    ),
    "what is no value": (layer((3, [1.5])), layer((3, [{"a": 1}])), "neither a number nor a word"),
    "an own layer": (layer((2, "C3k2")), layer((2, "C3k3")), "no layer"),
    "a layer of torch's": (layer((2, "nn.MaxPool2d")), layer((2, "nn.Module")), "no layer"),
    "a layer of torchvision's": (layer((2, "torchvision.ops.Permute")), layer((2, "torchvision.ops.nms")), "no layer"),
    "entries of a head": ({"backbone": [CONV], "head": [CONV]}, {"backbone": [CONV], "head": [7]}, r"not \[from"),
    "numbers that are some": ({"note": 1.5}, {"note": float("nan")}, "holds the number nan"),
    "a layer by its name": (layer((2, "Conv")), layer((2, 7)), "no layer"),
    "a layer of nobody's": (layer((2, "nn.Conv2d")), layer((2, "os.system")), "no layer"),
    "an activation": ({"activation": "nn.ReLU()"}, {"activation": "nn.Relu()"}, "is code"),
    "arguments of an activation": (
        {"activation": "torch.nn.LeakyReLU(0.1, inplace=True)"},
        {"activation": "nn.ReLU(1, 2, 3)"},
        "is code",
    ),
    "a number of it": ({"activation": "nn.ELU(-12345.0)"}, {"activation": "nn.ELU(123456)"}, "is code"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str) -> None:
    allowed, refused, said = LIMITS[name]
    check_description(allowed)
    with pytest.raises(UntrustedError, match=said) as caught:
        check_description(refused)
    assert str(caught.value).isprintable()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("found", [[], "text", None, 3])
def test_a_description_is_a_mapping(found: Any) -> None:
    with pytest.raises(UntrustedError, match=f"a {type(found).__name__} in the model's YAML: no mapping"):
        check_description(found)


def test_a_name_that_is_nearly_one_is_corrected() -> None:
    with pytest.raises(UntrustedError, match=r"did you mean C3k2\?"):
        check_description(layer((2, "C3k22")))
    for far in ("Elsewhere", "Convolve"):
        with pytest.raises(UntrustedError, match=r"may stand there; correct it"):
            check_description(layer((2, far)))


def test_activations_get_the_arguments_that_stand_there() -> None:
    leaky: Any = layer_of(" nn.LeakyReLU(0.25, inplace=True) ")
    assert (type(leaky), leaky.negative_slope, leaky.inplace) == (nn.LeakyReLU, 0.25, True)
    limits: Any = layer_of("torch.nn.Hardtanh(min_val=-2,max_val=3)")
    assert (limits.min_val, limits.max_val, type(limits.max_val)) == (-2, 3, int)
    shrink: Any = layer_of("nn.Softshrink(1e-3)")
    assert shrink.lambd == 1e-3
    assert not layer_of("nn.SiLU(False)").inplace
    assert layer_of("nn.ReLU(" + " " * 187 + "True)")
    for text in (
        "nn.ReLU(" + " " * 188 + "True)",
        "nn.ELU(x=1)",
        "nn.ReLU(inplace=1=2)",
        "nn.Linear(1, 2)",
        "nn.ReLU" + " " * 200 + "()",
        7,
        None,
    ):
        with pytest.raises(UntrustedError, match="is code"):
            layer_of(text)


@pytest.mark.parametrize("found", [None, int, nn])
def test_a_layer_that_a_release_has_not_is_none(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "A2C2f", found)
    with pytest.raises(UntrustedError, match="'A2C2f' in the model's YAML is no layer"):
        check_description(layer((2, "A2C2f")))
