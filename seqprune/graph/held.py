"""Numbers of channels that modules hold in attributes, as counts while a copy is traced."""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import nn

from seqprune.graph import widths
from seqprune.graph.counts import Count, is_count
from seqprune.graph.numbers import numbers, put
from seqprune.graph.reader import Held, Reader

HELD: Mapping[type[nn.Module], Mapping[str, tuple[tuple[str, int], ...]]] = {
    nn.modules.conv._ConvTransposeNd: {
        "in_channels": (("weight", 0),),
        "out_channels": (("weight", 1), ("bias", 0), ("weight", 0)),
    },
    nn.modules.conv._ConvNd: {"in_channels": (("weight", 1), ("weight", 0)), "out_channels": (("weight", 0),)},
    nn.Linear: {"in_features": (("weight", 1),), "out_features": (("weight", 0),)},
    nn.modules.batchnorm._NormBase: {"num_features": (("weight", 0), ("running_mean", 0))},
    nn.GroupNorm: {"num_channels": (("weight", 0),), "num_groups": ()},
    nn.PReLU: {"num_parameters": (("weight", 0),)},
}
"""Kind of module -> attribute -> the tensors and dimensions that tell its channels; a rule tells what groups are."""


def watch_held(modules: Mapping[str, nn.Module], reader: Reader) -> None:
    """Puts counts in the place of the numbers of channels that torch's own modules hold, in a copy that is traced."""
    for path, module in modules.items():
        held = [attributes for kind, attributes in HELD.items() if isinstance(module, kind)]
        if isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels:
            held.append({"groups": (("weight", 0),)})
        for attributes in held:
            for attribute, tensors in attributes.items():
                if type(number := vars(module).get(attribute)) is int:
                    module.__dict__[attribute] = Count(number, Held(path, tensors, attribute, number), reader, path)


def watch_attributes(modules: Mapping[str, nn.Module], reader: Reader, unwatched: Container[str]) -> list[Held]:
    """The same for every whole number above one that other modules hold, in lists too; gives those back of which nobody
    stated what they are. Code of one's own may do anything with what is stated, too.

    Args:
        modules: those of the copy, by their paths.
        reader: whom the counts tell.
        unwatched: paths of modules whose numbers stay plain.
    """
    watched = []
    for path, module in modules.items():
        if path in unwatched or type(module).__module__.startswith("torch."):
            continue
        stated = widths.held(module)
        for name, number in list(numbers(module)):
            if type(number) is not int or number < 2 or (name in stated and widths.known(module)):
                continue
            of = f"{path}.{stated[name][0]}".lstrip(".") if name in stated else ""
            held = Held(path, (), name, number, of)
            watched += [held] if name not in stated else []
            put(module, name, Count(number, held, reader, path))
    return watched


def unwatch(model: nn.Module) -> None:
    """Gives the modules of a copy their plain numbers back."""
    for module in model.modules():
        for name, number in list(numbers(module)):
            if is_count(number):
                put(module, name, number.number)
