"""The contracts are tested too: each planted fault is caught by the contract that names it, and ours passes all."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import planted
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from seqprune.errors import InputError
from seqprune.testing import CONTRACTS, PRUNERS, check, pruner, results
from seqprune.testing.networks import SIDE, Network, Unit, example, randomise
from seqprune.testing.pruners import GROUP
from seqprune.testing.strategies import networks
from seqprune.testing.trial import ContractError, NotApplicable, Prune, Trial, trial, trial_of_own

IMAGE = (example(),)


def chain() -> nn.Module:
    """Widths that are all different: whoever guesses by width guesses right."""
    net = nn.Sequential(Unit(3, 8, act=1), Unit(8, 7, act=1), Unit(7, 9, act=1), nn.Conv2d(9, 2, 1))
    randomise(net, 0)
    return net.double().eval()


def residual() -> nn.Module:
    net = Network()
    net.add("module", (0,), (8,), Unit(3, 8, act=1))
    net.add("module", (1,), (8,), Unit(8, 8, act=1))
    net.add("add", (1, 2), (8,))
    net.add("module", (3,), (6,), Unit(8, 6, act=1))
    net.finish()
    randomise(net, 0)
    return net.double().eval()


def branches() -> nn.Module:
    """One layer that two others read."""
    net = Network()
    net.add("module", (0,), (8,), Unit(3, 8, act=1))
    net.add("module", (1,), (6,), Unit(8, 6, act=1))
    net.add("module", (1,), (7,), Unit(8, 7, act=1))
    net.add("cat", (2, 3), (13,))
    net.finish()
    randomise(net, 0)
    return net.double().eval()


NETWORKS = {"chain": chain, "residual": residual, "branches": branches, "split": lambda: planted.tiny()[0]}


def states(prune: Prune, net: nn.Module, seed: int = 0) -> dict[str, str]:
    return {r.contract: r.state for r in results(trial(net, prune, IMAGE, seed=seed))}


def broken(prune: Prune, net: nn.Module) -> set[str]:
    """The contracts that fail, without those that only rest on one of them."""
    return {name for name, state in states(prune, net).items() if state == "fails"}


@pytest.mark.parametrize("name", NETWORKS)
def test_ours_holds_every_contract(name: str) -> None:
    found = states(PRUNERS["seqprune"].prune, NETWORKS[name]())
    assert {*found.values()} <= {"holds", "not applicable"}
    assert {n for n, state in found.items() if state == "not applicable"} == {"fusing", "plain"}


@settings(max_examples=8)
@given(net=networks(max_steps=5))
def test_ours_holds_every_contract_on_random_networks(net: Network) -> None:
    found = states(PRUNERS["seqprune"].prune, net)
    assert {*found.values()} <= {"holds", "not applicable"}, found


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (planted.loses_a_channel, "channels"),
        (planted.forgets_a_batchnorm, "batchnorm"),
        (planted.reorders, "order"),
    ],
)
def test_a_planted_fault_is_caught_by_the_contract_that_names_it(fault: Prune, named: str) -> None:
    with pytest.raises(ContractError, match=f"^{named}: ") as caught:
        check(named, *([planted.tiny()[0], fault, IMAGE]))
    assert caught.value.contract == named
    found = broken(fault, planted.tiny()[0])
    assert found & {"smaller", "channels", "batchnorm", "order", "runs"} - {named} <= {"batchnorm", "order"}
    assert named in found
    assert "values" in found  # and by values, whatever its name


@pytest.mark.parametrize("name", NETWORKS)
def test_zeroing_fails_where_something_had_to_go_and_nowhere_else(name: str) -> None:
    assert broken(PRUNERS["zeroing"].prune, NETWORKS[name]()) == {"smaller", "channels", "batchnorm", "training"}
    assert {*PRUNERS["zeroing"].expected} == {"smaller", "channels", "batchnorm", "training"}


def test_zeros_behind_a_relu_do_not_wake_up() -> None:
    """Its gradient at zero is zero; that of SiLU, which YOLO has, is not."""
    net = nn.Sequential(Unit(3, 8), Unit(8, 7), nn.Conv2d(7, 2, 1))
    randomise(net, 0)
    assert broken(PRUNERS["zeroing"].prune, net.double().eval()) == {"smaller", "channels", "batchnorm"}


@pytest.mark.parametrize("name", NETWORKS)
def test_half_applied_pruning_fails_where_the_predecessor_did(name: str) -> None:
    net = NETWORKS[name]()
    found = broken(PRUNERS["naive"].prune, net)
    assert found == {"channels", "batchnorm", "runs"} == {*PRUNERS["naive"].expected} - {"order"}
    asked = trial(net, PRUNERS["naive"].prune, IMAGE)
    with pytest.raises(ContractError, match=r"runs: .* expected input\[2, \d+, 6, 6\] to have \d+ channels, but got"):
        CONTRACTS["runs"].check(asked)


class Crossed(nn.Module):
    """Two layers of one width, read in the other order."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.of_other, self.of_one = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.of_one(self.one(x)), self.of_other(self.other(x))], 1)


def test_half_applied_pruning_takes_the_reader_of_another_where_widths_agree() -> None:
    """In the matrix it failed of three networks by their order too, which was not expected of it."""
    net = Crossed()
    randomise(net, 0)
    seed = 6  # as many channels of either layer stay, and others
    found = states(PRUNERS["naive"].prune, net.double().eval(), seed)
    failed = {name for name, state in found.items() if state == "fails"}
    assert "order" in failed
    assert failed <= {*PRUNERS["naive"].expected}


def test_guessing_the_reader_by_its_width_works_on_a_chain_and_fails_on_branches() -> None:
    prune = PRUNERS["back-to-front"].prune
    assert broken(prune, chain()) == set()
    for name in ("branches", "split"):
        found = broken(prune, NETWORKS[name]())
        assert "runs" in found
        assert found <= {*PRUNERS["back-to-front"].expected}


def test_what_rests_on_a_broken_contract_is_blocked_and_says_on_which() -> None:
    found = {r.contract: r for r in results(trial(chain(), PRUNERS["naive"].prune, IMAGE))}
    assert found["values"].state == "blocked"
    assert found["values"].reason == "rests on runs"
    with pytest.raises(ContractError, match=r"^runs: "):
        check("values", chain(), PRUNERS["naive"].prune, IMAGE)


def test_values_are_compared_and_not_only_shapes() -> None:
    """A reader that takes the wrong channels runs, in the right shapes."""

    def swaps(module: nn.Module, inputs: tuple[torch.Tensor, ...], keep: object) -> nn.Module:
        small = PRUNERS["seqprune"].prune(module, inputs, keep)  # type: ignore[arg-type]
        small[-1].weight.data = small[-1].weight.data.flip(1)
        return small

    found = {r.contract: r for r in results(trial(chain(), swaps, IMAGE))}
    assert found["runs"].state == "holds"
    assert found["values"].state == "fails"
    assert "output 0 has" in found["values"].reason


def test_a_keep_set_may_be_given() -> None:
    check("channels", chain(), PRUNERS["seqprune"].prune, IMAGE, {"0.conv": [0, 3]})
    with pytest.raises(InputError, match="there is no contract"):
        check("beauty", chain(), PRUNERS["seqprune"].prune, IMAGE)


def test_a_network_without_a_free_channel_is_not_applicable() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1)).double().eval()
    with pytest.raises(NotApplicable, match="no channel"):
        check("returns", net, PRUNERS["seqprune"].prune, IMAGE)
    assert {*states(PRUNERS["seqprune"].prune, net).values()} == {"not applicable"}


def test_the_network_given_is_never_changed() -> None:
    net = chain()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    states(PRUNERS["back-to-front"].prune, net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_pruner_that_chooses_itself_says_what_it_kept() -> None:
    ours = PRUNERS["seqprune-fast"]
    asked: Trial = trial_of_own(chain(), ours.prune, IMAGE)
    assert {r.state for r in results(asked, own=True)} <= {"holds", "not applicable"}
    assert asked.plan.layers
    with pytest.raises(ContractError, match="does not say which"):
        trial_of_own(chain(), PRUNERS["seqprune"].prune, IMAGE)


def test_every_contract_says_its_law_and_rests_on_contracts_before_it() -> None:
    names = list(CONTRACTS)
    for place, (name, each) in enumerate(CONTRACTS.items()):
        assert each.law.endswith("."), name
        assert all(names.index(other) < place for other in each.requires)


def test_pruners_are_found_by_name_by_function_and_not_by_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pruner("planted:reorders").prune is planted.reorders
    for wrong in ("nobody", "planted:nothing", "no.such:function"):
        with pytest.raises(InputError):
            pruner(wrong)
    with pytest.raises(InputError, match=r"register prune\(module"):
        pruner("planted:__name__")
    entry = metadata.EntryPoint("mine", "planted:reorders", GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == GROUP else [])
    assert pruner("mine").prune is planted.reorders
    with pytest.raises(InputError, match="back-to-front, mine"):
        pruner("nobody")


def test_a_function_beside_the_tests_is_found_without_installing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_these.py").write_text("def prune(module, example_inputs, keep):\n    return module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert callable(pruner("beside_these:prune").prune)


@pytest.mark.parametrize("name", ["torch-pruning", "torch-pruning-c2f"])
def test_a_peer_is_used_as_documented_and_its_values_compared(name: str) -> None:
    pytest.importorskip("torch_pruning")
    found = states(PRUNERS[name].prune, residual())
    applies = name == "torch-pruning"
    assert {*found.values()} <= ({"holds", "not applicable"} if applies else {"not applicable"})
    assert found["values"] == ("holds" if applies else "not applicable")
    assert PRUNERS[name].peer
    assert SIDE
