"""What a model YAML may say: layers by name, with numbers and a few plain words.

Ultralytics' ``parse_model`` looks up whatever name stands in a description, hands it whatever arguments stand beside
it, and evaluates the text under ``activation``. A network named among the layers does the same once more, with a
description of its own choice. So nothing reaches it but what is on the lists here: single layers, whose constructors
take numbers, words that they compare, and lists of those. It is checked whenever a network is built.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn
from ultralytics.nn import tasks

from seqprune.errors import UntrustedError
from seqprune.plain import UnreadableError, check_plain, is_name, is_number, is_whole, printable

_OWN = frozenset(
    "A2C2f ADown AConv AIFI Bottleneck BottleneckCSP C1 C2 C2PSA C2f C2fAttn C2fCIB C2fPSA C3 C3Ghost C3TR C3k2 "
    "C3x CBFuse CBLinear Classify Concat Conv Conv2 ConvTranspose DWConv DWConvTranspose2d Depth Detect ELAN1 "
    "Focus GhostBottleneck GhostConv HGBlock HGStem ImagePoolingAttn Index OBB OBB26 PSA Pose Pose26 "
    "RTDETRDecoder RepC3 RepConv RepNCSPELAN4 ResNetLayer SCDown SPP SPPELAN SPPF Segment Segment26 "
    "SemanticSegment TorchVision WorldDetect YOLOEDetect YOLOESegment YOLOESegment26 v10Detect".split()
)
_ACTIVATIONS = frozenset(
    "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh Identity LeakyReLU LogSigmoid Mish PReLU RReLU "
    "ReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink".split()
)
_TORCH = _ACTIVATIONS | frozenset(
    "AdaptiveAvgPool2d AdaptiveMaxPool2d AvgPool2d BatchNorm2d ChannelShuffle Conv2d ConvTranspose2d Dropout "
    "Dropout2d Flatten GroupNorm InstanceNorm2d LPPool2d LayerNorm Linear LocalResponseNorm MaxPool2d "
    "PixelShuffle PixelUnshuffle ReflectionPad2d ReplicationPad2d Softmax Softmax2d Upsample UpsamplingBilinear2d "
    "UpsamplingNearest2d ZeroPad2d".split()
)
_VISION = frozenset("DeformConv2d DropBlock2d FrozenBatchNorm2d Permute SqueezeExcitation StochasticDepth".split())
_WORDS = frozenset(
    "nc kpt_shape reg_max end2end None True False nearest nearest-exact bilinear bicubic area zeros reflect "
    "replicate circular none tanh batch row".split()
)
_TEXT_MODELS = frozenset(
    ("clip:ViT-B/32", "mobileclip:blt", "mobileclip:b", "mobileclip2:b", "mobileclip2:s0", "mobileclip2:s2")
)
_NUMBER = r"(?:True|False|-?\d{1,5}(?:\.\d{0,9})?(?:e-?\d)?)"
_PART = rf"\s*(?:[a-z_]{{1,20}}\s*=\s*)?{_NUMBER}\s*"
_ACTIVATION = re.compile(
    rf"(?:torch\.)?nn\.(?P<name>\w{{1,20}})\((?P<given>(?:{_PART}(?:,{_PART}){{0,5}})?)\)", re.ASCII
)
_WIDEST = 65_536
_LAYERS = 1_000
_REPEATS = 1_000
_CHANNELS = 1_024
_CLASSES = 100_000


def check_description(description: Any) -> None:
    """Look at all of a description before anything is built from it.

    Args:
        description: A model YAML as read, or the ``yaml`` of a network.

    Raises:
        UntrustedError: it names what is no single layer, gives one what is neither a number nor a known word, or holds
            a number beyond all sizes; the message says what.
    """
    if not isinstance(description, Mapping):
        raise _refused(f"a {type(description).__name__}", "no mapping of backbone and head")
    try:
        check_plain(dict(description))
    except UnreadableError as error:
        raise _refused("the description", str(error)) from error
    if activation := description.get("activation"):
        layer_of(activation)
    _check_numbers(description)
    layers = [_entries(description, part) for part in ("backbone", "head")]
    if len(layers[0]) + len(layers[1]) > _LAYERS:
        raise _refused(f"{len(layers[0]) + len(layers[1])} layers", f"more than {_LAYERS}")
    for entry in (*layers[0], *layers[1]):
        _check_entry(entry)


def layer_of(text: Any) -> nn.Module:
    """The layer that an ``activation`` names: one of ``torch.nn``'s activations, with plain arguments.

    Raises:
        UntrustedError: it is anything else.
    """
    found = _ACTIVATION.fullmatch(text.strip()) if is_name(text, 200) else None
    if found is None or found["name"] not in _ACTIVATIONS:
        raise _no_activation(text)
    pairs = [part.strip().rpartition("=") for part in found["given"].split(",") if part.strip()]
    named = {name.strip(): _plain(value.strip()) for name, equals, value in pairs if equals}
    try:
        made: nn.Module = getattr(nn, found["name"])(
            *(_plain(value) for _, equals, value in pairs if not equals), **named
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_activation(text) from error
    return made


def _plain(value: str) -> bool | float:
    """A number or a truth value as it is written in an activation."""
    if value in ("True", "False"):
        return value == "True"
    return float(value) if set(value) & set(".e") else int(value)


def _no_activation(text: Any) -> UntrustedError:
    return UntrustedError(
        f"the activation {printable(text, 80)!r} in the model's YAML is code, not a layer of torch.nn with plain "
        "arguments; write one such as nn.ReLU()"
    )


def _refused(what: str, why: str) -> UntrustedError:
    return UntrustedError(f"{what} in the model's YAML: {why}; correct it")


def _check_numbers(description: Mapping[str, Any]) -> None:
    """All that is said beside the layers."""
    bounds: dict[str, tuple[int, int]] = {"nc": (1, _CLASSES), "channels": (1, _CHANNELS), "ch": (1, _CHANNELS)}
    bounds["reg_max"] = (1, 256)
    for key, (least, most) in bounds.items():
        if description.get(key) is not None and not is_whole(description[key], least, most):
            raise _refused(f"{key}: {printable(description[key], 60)}", f"no whole number from {least} to {most}")
    for key in ("depth_multiple", "width_multiple"):
        if key in description and not is_number(description[key], 0, 16):
            raise _refused(f"{key}: {printable(description[key], 60)}", "no number from 0 to 16")
    scales = description.get("scales") or {}
    if not isinstance(scales, Mapping) or not all(is_name(name, 20) and _is_scale(row) for name, row in scales.items()):
        raise _refused("scales", "not a depth, a width (0 to 16) and a number of channels for each name")
    if scales and description.get("scale") and description["scale"] not in scales:
        raise _refused(f"scale: {printable(description['scale'], 60)}", "none of its scales")
    points = description.get("kpt_shape")
    if points is not None and not (
        isinstance(points, list | tuple) and len(points) == 2 and is_whole(points[0], 1, 10_000) and points[1] in (2, 3)
    ):
        raise _refused("kpt_shape", "not a number of points and 2 or 3")
    if description.get("text_model") not in (None, *_TEXT_MODELS):
        raise _refused(f"text_model: {printable(description['text_model'], 60)}", "none that is known")
    for key, value in description.items():
        if not is_name(key, 100) or (isinstance(value, str) and not is_name(value, 4096)):
            raise _refused(printable(key, 60), "not a name and plain values")


def _is_scale(row: Any) -> bool:
    if not isinstance(row, list | tuple) or len(row) != 3:
        return False
    return all(is_number(value, 0, 16) for value in row[:2]) and is_number(row[2], 1, _WIDEST)


def _entries(description: Mapping[str, Any], part: str) -> list[Any]:
    entries = description.get(part, [])
    if not isinstance(entries, list):
        raise _refused(part, "not a list of layers")
    return entries


def _check_entry(entry: Any) -> None:
    """One layer: where it reads, how often it stands there, its name, its arguments."""
    if not isinstance(entry, list | tuple) or len(entry) != 4:
        raise _refused(printable(entry, 80), "not [from, repeats, module, arguments]")
    source, repeats, name, arguments = entry
    if not is_layer(name):
        near = difflib.get_close_matches(printable(name, 80), sorted(_OWN), n=1, cutoff=0.8)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UntrustedError(
            f"{printable(name, 80)!r} in the model's YAML is no layer of torch's or Ultralytics' that may stand "
            f"there{hint}; correct it"
        )
    sources = source if isinstance(source, list | tuple) else [source]
    if not sources or len(sources) > 100 or not all(is_whole(one, -_LAYERS, _LAYERS) for one in sources):
        raise _refused(f"{name} from {printable(source, 60)}", "no layers' numbers")
    if not is_whole(repeats, 1, _REPEATS):
        raise _refused(f"{name} {printable(repeats, 60)} times", f"no number from 1 to {_REPEATS}")
    if not isinstance(arguments, list | tuple):
        raise _refused(f"{name}({printable(arguments, 60)})", "no list of arguments")
    words = _WORDS
    if name == "TorchVision":  # the architecture of one of torchvision's networks, and which of its weights
        words = words | {"DEFAULT", *torchvision.models.list_models(module=torchvision.models)}
    for argument in arguments:
        _check_argument(str(name), argument, words, 0)


def is_layer(name: Any) -> bool:
    """Whether a name is that of a single layer that a description may hold."""
    if not is_name(name, 100):
        return False
    room, _, last = name.rpartition(".")
    known = {"nn": (nn, _TORCH), "torchvision.ops": (torchvision.ops, _VISION), "": (tasks, _OWN)}.get(room)
    if known is None or last not in known[1]:
        return False
    found = getattr(known[0], last, None)
    return isinstance(found, type) and issubclass(found, nn.Module)


def _check_argument(name: str, value: Any, words: frozenset[str], depth: int) -> None:
    if isinstance(value, list | tuple):
        if len(value) > 100 or depth > 2:
            raise _refused(f"{name}({printable(value, 60)})", "a list too long")
        for part in value:
            _check_argument(name, part, words, depth + 1)
    elif isinstance(value, str):
        if value not in words:
            raise _refused(f"{name}({printable(value, 60)!r})", "a text that is no word of a layer's")
    elif not (value is None or isinstance(value, bool) or is_number(value, -_WIDEST, _WIDEST)):
        raise _refused(f"{name}({printable(value, 60)})", "neither a number nor a word")
