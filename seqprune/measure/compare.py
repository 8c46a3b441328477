"""Methods of pruning at equal parameters or operations, on the same images, without training: a table and a plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from seqprune.engine.kinds import checked
from seqprune.engine.listener import Listener, heard
from seqprune.engine.options import Opening
from seqprune.engine.run import fingerprint
from seqprune.engine.settings import Choose, Look, Open, Train
from seqprune.engine.state import State, began
from seqprune.engine.subject import Subject
from seqprune.engine.task import Task
from seqprune.errors import InputError
from seqprune.measure.bench import Bench, Tune
from seqprune.measure.comparison import COUNTED, UNPRUNED, Comparison, Row
from seqprune.measure.methods import EIGHT_BITS, IMGSZ, Method, Resizable, is_network, method
from seqprune.observe.device import as_device
from seqprune.observe.ranks import Ranks, connect, own_device
from seqprune.plain import is_count, is_share
from seqprune.runtimes.where import QUANTISING, Where
from seqprune.sources.opening import opened
from seqprune.sources.samples import samples

if TYPE_CHECKING:
    from typing_extensions import Unpack


def compare(
    model: str | Path | nn.Module | Any,
    data: Any,
    *,
    targets: Sequence[float],
    methods: Sequence[str],
    count: str = "params",
    images: int | None = 128,
    imgsz: int | None = None,
    batch: int = 16,
    device: str | int = "cpu",
    seed: int = 0,
    subsets: int = 1,
    finetune: int = 0,
    runtimes: Sequence[str] = (),
    threads: int | None = None,
    listener: Listener | None = None,
    on_row: Callable[[Row], None] = lambda _row: None,
    state: State | None = None,
    **how: Unpack[Opening],
) -> Comparison:
    """Prunes with each method to each target and measures what is left, without training unless it is asked for.

    Args:
        model, data: as :func:`seqprune.prune` takes them; methods look at ``train``, accuracy is measured on ``val``.
            The first accuracy that is measured is compared.
        methods: names, see :func:`seqprune.measure.methods.method`, or files of other networks of the same classes,
            measured as they are. At equal operations smaller images, ``imgsz``, are always among them. ``int8`` follows
            every row with the same in eight bits, by the tool of one of the ``runtimes`` and the same images.
        targets, count: shares that stay, of the ``params`` or ``flops``.
        images: training images, a seeded sample, the same for every method; all of them where None.
        imgsz, batch, device, seed: see :mod:`seqprune.engine.settings`; pruning and timing are on the CPU.
        subsets: calibration subsets of so many ``images``, without one in common where there are enough; each method
            prunes with each of them, with a seed of its own, and its row has the mean and the spread.
        finetune: epochs on all ``train`` images afterwards, alike for every method (Ultralytics' networks).
        runtimes, threads: where rows are timed too, beside torch's bare pass.
        listener: told what is going on; ``on_row`` each row, and what each of several subsets gave before.
        state: rows of an earlier comparison of the same that was ended; each row is kept there as it comes.
        how: see :class:`seqprune.engine.settings.Open`.

    A method that fails gives a row with its reason, and the others go on. Under ``torchrun`` each process measures a
    row at a time, all of them return all rows, and the first alone keeps them.

    Raises:
        InputError: weights, data, names or numbers that cannot be used, or others than the state was begun with.
        LostError: images are gone that were there.
    """
    ranks, told, state = connect(), heard(listener), began(state)
    chosen = _chosen(targets, methods, count, subsets, finetune, ranks)
    places, tool = _places(runtimes, threads, device, methods)
    wanted = _look(images, subsets, Look(None, imgsz, batch, device), tool)
    asked = wanted, Choose(seed=seed), Train(finetune), Open(**how)
    subject, look = opened(model, data, *asked, device=own_device(as_device(str(device)), ranks), told=told)
    tasks = samples(subject.task, subsets, images, seed)
    tune = _tune(data, finetune, look, state) if finetune else None
    bench = Bench(subject, tasks, count, seed, told, on_row, state, tune, places, tool, ranks)
    about = (count, look.imgsz, batch, seed, subsets, finetune)
    _hold(state, subject, tasks, repr((targets, list(methods), about, places)))
    found = _settings(subject, tasks, look, about), _rows(bench, targets, chosen | _trivial(subject.task, count))
    return Comparison(subject.source, subject.data, *found)


def _look(images: int | None, subsets: int, look: Look, tool: Where | None) -> Look:
    """At so many images for every subset, and where they are brought to eight bits."""
    look = replace(look, images=images)  # checked before it is multiplied
    look = replace(look, images=look.images and look.images * subsets)
    return look if tool is None else replace(look, runtime=tool.runtime, threads=tool.threads, int8=True)


def _hold(state: State, subject: Subject, tasks: Sequence[Task], asked: str) -> None:
    """
    Raises:
        InputError: the state was begun with something else.
    """
    state.same("settings", asked, "what is asked for")
    state.same("network", fingerprint(subject.model), "the network")
    state.same("images", " ".join(task.images.fingerprint() for task in tasks), "the images")


def _places(
    runtimes: Sequence[str], threads: int | None, device: str | int, methods: Sequence[str]
) -> tuple[list[Where], Where | None]:
    """Where rows are timed, and where they are brought to eight bits if that is asked for.

    Raises:
        InputError: a runtime that is not there, or none with a tool for eight bits.
    """
    given = checked("runtimes", runtimes, "Sequence[str]") or ()
    places = [Where(name, threads, str(device)).settled() for name in dict.fromkeys(given)]
    if EIGHT_BITS not in methods:
        return places, None
    tool = next((where for where in places if where.runtime in QUANTISING), None)
    if tool is None:
        raise InputError(f"int8 is made by a runtime's tool: name {' or '.join(QUANTISING)} among the runtimes")
    return places, tool


def _trivial(task: Task, count: str) -> dict[str, Method]:
    """What anybody would try first, where it can be tried."""
    return {IMGSZ: method(IMGSZ)} if count == "flops" and isinstance(task, Resizable) else {}


def _chosen(
    targets: Sequence[float], methods: Sequence[str], count: str, subsets: int, finetune: int, ranks: Ranks
) -> dict[str, Method]:
    """The methods by name.

    Raises:
        InputError: a name or number that cannot be used.
    """
    chosen = {name: method(name) for name in checked("methods", methods, "Sequence[str]") or () if name != EIGHT_BITS}
    if not (is_count(subsets, 1) and is_count(finetune, 0)):
        raise InputError(
            f"subsets={subsets}, finetune={finetune}: give the number of samples that methods look at, 1 or more, and "
            "epochs, 0 or more"
        )
    if finetune and ranks.count > 1:
        raise InputError("fine-tuning is not part of a comparison under torchrun: leave out torchrun, or finetune")
    if count not in [*COUNTED]:
        raise InputError(f"methods are compared at equal parameters or operations, not {count}: choose params or flops")
    if not (isinstance(targets, Sequence) and targets and chosen and all(map(is_share, targets))):
        raise InputError(f"a comparison needs a method and a target: give shares of the {COUNTED[count]} in (0, 1)")
    return chosen


def _rows(bench: Bench, targets: Sequence[float], chosen: dict[str, Method]) -> tuple[Row, ...]:
    """The unpruned network first, those that failed last; of several processes each measures a row at a time."""
    networks = [(1.0, name) for name in chosen if is_network(name)]
    again = [(target, name) for target in targets for name in chosen if not is_network(name)]
    every, ranks = [(1.0, UNPRUNED), *networks, *again], bench.ranks

    def measured(target: float, name: str, tell: Callable[[Row], None]) -> list[Row]:
        prune = chosen.get(name)
        found = [bench.unpruned if prune is None else bench.pruned(Row(name, target), prune, tell)]
        tell(found[0])
        if bench.tool is not None and not found[0].reason:
            found.append(bench.quantised(found[0], prune))
            tell(found[1])
        return found

    rows: list[Row] = []
    if ranks.count > 1:
        bench.recall(every)
    for at in range(0, len(every), ranks.count):
        together = every[at : at + ranks.count]
        if ranks.count > 1:
            for mine in together[ranks.rank : ranks.rank + 1]:
                measured(*mine, lambda _row: None)
            bench.exchange()
        for each in together:
            rows += measured(*each, bench.tell)
    return (*(row for row in rows if not row.reason), *(row for row in rows if row.reason))


def _tune(data: Any, epochs: int, look: Look, state: State) -> Tune:
    """Ultralytics' training, in the shape that a method left."""
    from seqprune.yolo.train.tuning import finetune

    how: dict[str, Any] = {"imgsz": look.imgsz, "batch": look.batch, "device": str(look.device), "state": state}
    return lambda network, seed: finetune(network, data, epochs=epochs, seed=seed, **how)


def _settings(subject: Subject, tasks: Sequence[Task], look: Look, about: Sequence[Any]) -> dict[str, Any]:
    """As the page says them."""
    count, imgsz, batch, seed, subsets, finetune = about
    settings: dict[str, Any] = {"images": tasks[0].images.image_count, "imgsz": imgsz, "batch": batch, "seed": seed}
    if imgsz is None:
        del settings["imgsz"]
    if finetune:
        settings["finetune"] = finetune
    if count != "params":
        settings["target"] = COUNTED[count]
    if subsets > 1:
        apart = look.images == subject.task.images.image_count
        settings["subsets"] = f"{subsets}, {'disjoint' if apart else 'overlapping'}"
    return settings
