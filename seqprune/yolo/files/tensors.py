"""A network as a pair of files that hold no code: its tensors, and a description of what they belong to.

``pruned.safetensors`` holds the tensors, ``pruned.json`` beside it the model YAML, the task, the class names, the plan,
the numbers of channels that the code of some modules computes with (attention), which blocks are left out, and which
convolutions are made of two. The network is built from the YAML at its full width, blocks leave it, and it is factored;
every layer then takes the widths of its tensors, and those modules their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import ultralytics
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from seqprune.atomic import atomic
from seqprune.errors import InputError, ModelError, PlanError, VerificationError
from seqprune.graph.copying import copied
from seqprune.graph.factor import Factor, factored, factors_of
from seqprune.graph.leaving import leave_out, left_out_of, merge
from seqprune.plain import UnreadableError, is_name, is_whole, json_of, printable, text_of, why_no_file
from seqprune.plan import PrunePlan
from seqprune.surgery import fill, verify
from seqprune.yolo.files.bounded import bounded
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.files.heads import knows_some, mark_some, with_classes
from seqprune.yolo.files.networks import NETWORKS, build, example, forget_inputs
from seqprune.yolo.files.pruned import forget, remember
from seqprune.yolo.files.settings import plain_settings
from seqprune.yolo.files.unpickle import UNREADABLE
from seqprune.yolo.task.tracing import trace_detector

FORMAT, FACTORED, UNFACTORED = 3, 2, 1
FORMATS = (UNFACTORED, FACTORED, FORMAT)
SUFFIX = ".safetensors"


def save_pair(model: nn.Module, path: str | Path, *, names: Mapping[int, str], plan_json: str | None = None) -> Path:
    """Write ``path`` and the description beside it, after proving that the network comes back from them.

    Args:
        model: An Ultralytics network; it is copied, not changed.
        path: Where to write, in an existing folder; ends in ``.safetensors``.
        names: Class id to name.
        plan_json: The pruning plan.

    Raises:
        InputError: The files cannot be written there.
        ModelError: The network is of a kind that its YAML does not describe.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: such files end in {SUFFIX}; use such a name")
    copy: Any = copied(model).float().cpu().to(memory_format=torch.contiguous_format).eval()
    forget_inputs(copy)
    forget(copy)
    task = getattr(copy, "task", "detect")
    if type(copy) is not NETWORKS.get(task):
        raise ModelError(f"a {type(copy).__name__} cannot be rebuilt from its YAML; save it as a .pt")
    arguments: Any = getattr(copy, "args", None)
    imgsz = arguments.get("imgsz") if isinstance(arguments, dict) else getattr(arguments, "imgsz", None)
    described: Any = copy.yaml
    with contained():
        blocks, factors = _moves(build(task, described, described.get("nc", len(names))), copy)
    description = {
        "format": FORMAT if blocks else FACTORED if factors else UNFACTORED,
        "task": task,
        "names": {str(number): name for number, name in names.items()},
        "some_classes": knows_some(copy),
        "imgsz": imgsz,
        "yaml": described,
        "plan": None if plan_json is None else json.loads(plan_json),
        "widths": [
            [width.module, width.attribute, getattr(copy.get_submodule(width.module), width.attribute)]
            for width in trace_detector(copy).widths
        ],
        "blocks": list(blocks),
        "factors": [[factor.block, factor.first, factor.rank] for factor in factors],
        "versions": {"ultralytics": ultralytics.__version__, "torch": str(torch.__version__)},
    }
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in copy.state_dict().items()}
    try:
        description["widths"] += _other_numbers(copy, _rebuilt(json.loads(json.dumps(description)), tensors, path))
        text = json.dumps(description, indent=1)
        verify(copy, _rebuilt(json.loads(text), tensors, path), example(copy), tolerance=0.0)
    except (VerificationError, RuntimeError, ValueError) as error:
        raise ModelError(f"its YAML does not describe this network ({one_line(error)}); save it as a .pt") from error
    try:
        with atomic(path) as tensors_file, atomic(path.with_suffix(".json")) as described:
            save_file(tensors, tensors_file, metadata={"format": "pt"})
            described.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({one_line(error)}); check the folder") from error
    return path


def _moves(whole: nn.Module, model: nn.Module) -> tuple[tuple[str, ...], tuple[Factor, ...]]:
    """Blocks that a network is built without, and those that are factored then; ``whole`` is changed."""
    blocks = left_out_of(whole, model)
    without(whole, blocks)
    return blocks, factors_of(whole, model)


def _other_numbers(model: nn.Module, built: nn.Module) -> list[list[Any]]:
    """Module, attribute and number where modules hold others than those built, as deploy steps read that followed."""
    as_built = {path: vars(module) for path, module in built.named_modules()}
    return [
        [path, name, number]
        for path, module in model.named_modules()
        for name, number in vars(module).items()
        if path and type(number) is int and type(was := as_built.get(path, {}).get(name)) is int and number != was
    ]


def load_pair(path: Path) -> nn.Module:
    """The network of such a pair, carrying its plan; nothing in either file is run.

    Raises:
        ModelError: A file of the pair is missing or damaged, or they do not belong together.
        UntrustedError: The description holds code where the name of a layer belongs.
    """
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if reason := why_no_file(file):
            raise ModelError(f"{file}: {reason}; {path.name} and {beside.name} belong together, check the path")
    try:
        description = json_of(text_of(beside))
        tensors = load_file(path)
    except (UnreadableError, OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: it or {beside.name} is damaged ({one_line(error)}); copy both again") from error
    if not isinstance(description, dict) or description.get("format") not in FORMATS:
        raise ModelError(f"{beside}: describes no network that this version knows; save it again with seqprune")
    try:
        network = _rebuilt(description, tensors, path)
        with torch.no_grad(), bounded():
            network(example(network))
        if description.get("plan") is not None:
            remember(network, PrunePlan.from_json(json.dumps(description["plan"])).to_json())
    except (*UNREADABLE, PlanError) as error:
        raise ModelError(f"{path}: does not fit {beside.name} ({one_line(error)}); copy both again") from error
    return network


def factor_of(value: Any) -> Factor:
    """Block, which of both comes first, and the channels between.

    Raises:
        ValueError: it is something else.
    """
    block, first, rank = value
    if not is_name(block) or first not in ("column", "row") or not is_whole(rank, 1, 1 << 20):
        raise ValueError(f"{printable(value, 80)} is no factor")
    return Factor(block, first, rank)


def without(network: nn.Module, blocks: Iterable[object]) -> None:
    """Leaves blocks out, in place.

    Raises:
        ValueError: one of them is no name.
        PlanError: there is none of that name.
    """
    paths = [str(path) if is_name(path) else "" for path in blocks]
    if not all(paths):
        raise ValueError("a block that is left out has no name")
    leave_out(network, paths)
    merge(network, paths)


def _is_width(value: Any) -> bool:
    """A number of channels, or a list of them."""
    return all(is_whole(one, 0, 1 << 20) for one in (value if isinstance(value, list) else [value]))


def _rebuilt(description: Mapping[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """The described network with these tensors."""
    names = {int(number): printable(name, 300) for number, name in description["names"].items()}
    classes = description["yaml"].get("nc", len(names))  # with which it was built, whatever it knows by now
    with contained():
        network: Any = build(description["task"], description["yaml"], classes)
    if classes != len(names):
        network = with_classes(network, [*names.values()])
    without(network, description.get("blocks", ()))
    network = factored(network, [factor_of(factor) for factor in description.get("factors", ())])
    if strange := sorted(network.state_dict().keys() ^ tensors.keys()):
        raise ValueError(f"{strange[0]} is in only one of the tensors and the description")
    fill(network, tensors)
    for module, attribute, width in description.get("widths", ()):
        owner = network.get_submodule(module)
        if not _is_width(getattr(owner, attribute)) or not _is_width(width):
            raise ModelError(f"{path}: {module}.{attribute} holds no width; copy both files again")
        setattr(owner, attribute, width)
    network.names, network.nc, network.task = names, len(names), description["task"]
    network.args = plain_settings({"task": description["task"], "imgsz": description["imgsz"] or 640})
    mark_some(network, bool(description.get("some_classes")))
    rebuilt: nn.Module = network
    return rebuilt
