"""Whatever happens to a network in whatever order, it stays that of its masked twin.

`TTS_LONG_TESTS=1 python -m pytest tests/test_life_of_a_network.py` lives 2,000 longer lives.
"""

from __future__ import annotations

import copy
import io
import os
import pickle

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from small_layers import seeded
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import MaskedLinear, Topology, TrulySparseLinear
from torch_truly_sparse.nn import AveragedModel
from torch_truly_sparse.topology import seal_of

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.05),
}
PRUNES = ["sign_split", "magnitude", "random", "magnitude_gradient"]
GROWTHS = ["random", "gradient", "momentum", "candidate_gradient", "cannistraci_hebb"]


class Twin:
    """A network, its optimizer and its evolution."""

    def __init__(self, kind, sizes, nnz, bias, optimizer, rules, seed) -> None:
        inputs, hidden, outputs = sizes
        g = seeded(seed)
        options = {"dtype": torch.float64, "generator": g}
        self.model = nn.Sequential(
            kind(inputs, hidden, bias, nnz=min(nnz, inputs * hidden), **options),
            nn.Tanh(),
            kind(hidden, outputs, bias, nnz=min(nnz, hidden * outputs), **options),
        )
        self.kind, self.rules, self.made = kind, rules, OPTIMIZERS[optimizer]
        self.average = AveragedModel(self.model)
        self.start(seed)

    def start(self, seed) -> None:
        self.optimizer = self.made(self.model.parameters())
        self.evolution = tts.SparseEvolution(
            self.model, self.optimizer, generator=seeded(seed), **self.rules
        )

    def step(self, x, target) -> None:
        self.optimizer.zero_grad()
        (self.model(x) - target).square().mean().backward()
        self.optimizer.step()


class LifeOfANetwork(RuleBasedStateMachine):
    """The truly sparse network and its masked twin live through the same events."""

    @initialize(
        sizes=st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(1, 6)),
        nnz=st.integers(1, 40),
        bias=st.booleans(),
        optimizer=st.sampled_from(sorted(OPTIMIZERS)),
        prune=st.sampled_from(PRUNES),
        regrow=st.sampled_from(GROWTHS),
        fraction=st.sampled_from([0.0, 0.1, 0.3, 0.9, 1.0]),
        every=st.integers(1, 4),
        seed=st.integers(0, 1000),
    )
    def begin(self, sizes, nnz, bias, optimizer, prune, regrow, fraction, every, seed) -> None:
        rules = {"prune": prune, "regrow": regrow, "fraction": fraction, "every": every}
        self.sizes, self.seed, self.steps = sizes, seed, 0
        self.twins = [
            Twin(kind, sizes, nnz, bias, optimizer, rules, seed)
            for kind in (TrulySparseLinear, MaskedLinear)
        ]
        self.nnz = [layer.nnz for layer in self.layers(0)]

    def layers(self, number):
        return [m for m in self.twins[number].model.modules() if isinstance(m, tts.nn.SparseLayer)]

    def input(self, batch):
        return torch.randn(batch, self.sizes[0], dtype=torch.float64, generator=seeded(self.steps))

    @rule(batch=st.sampled_from([1, 5, 40]), count=st.integers(1, 5))
    def train(self, batch, count) -> None:
        for _ in range(count):
            self.steps += 1
            x = self.input(batch)
            target = torch.randn(batch, self.sizes[2], dtype=torch.float64, generator=seeded(7))
            for twin in self.twins:
                twin.step(x, target)

    @rule()
    def average(self) -> None:
        for twin in self.twins:
            twin.average.update_parameters(twin.model)

    @rule(pickled=st.booleans())
    def copy_all(self, pickled) -> None:
        for twin in self.twins:
            parts = twin.model, twin.optimizer, twin.evolution, twin.average
            copied = pickle.loads(pickle.dumps(parts)) if pickled else copy.deepcopy(parts)
            twin.evolution.remove()
            twin.model, twin.optimizer, twin.evolution, twin.average = copied

    @rule(assign=st.booleans())
    def save_and_load(self, assign) -> None:
        """Into a network that was made from another seed, and has evolved on its own way."""
        for twin in self.twins:
            buffer = io.BytesIO()
            states = [part.state_dict() for part in (twin.model, twin.optimizer, twin.evolution)]
            torch.save(states, buffer)
            buffer.seek(0)
            model, optimizer, evolution = torch.load(buffer, weights_only=True)
            twin.evolution.remove()
            twin.model = copy.deepcopy(twin.model)
            for layer in twin.model.modules():
                if isinstance(layer, tts.nn.SparseLayer):
                    layer.reset_topology(generator=seeded(99))
            twin.model.load_state_dict(model, assign=assign)
            twin.start(5)
            twin.optimizer.load_state_dict(optimizer)
            twin.evolution.load_state_dict(evolution)

    @rule()
    def through_float32(self) -> None:
        """A new optimizer begins: the state of the old one keeps its dtype."""
        for twin in self.twins:
            twin.evolution.remove()
            twin.model.float().double()
            twin.average.float().double()
            twin.start(self.steps)

    @rule()
    def through_other_forms(self) -> None:
        for layer in self.layers(0):
            mask = MaskedLinear.from_sparse(layer).mask
            again = TrulySparseLinear.from_dense(layer.to_dense(), mask=mask)
            assert again.topology == layer.topology
            assert torch.equal(again.values, layer.values)

    @rule()
    def start_anew(self) -> None:
        for twin in self.twins:
            twin.evolution.remove()
            for number, layer in enumerate(twin.model.modules()):
                if isinstance(layer, tts.nn.SparseLayer):
                    layer.topology_learnt = True
                    layer.reset_parameters(generator=seeded(self.steps + number))
            twin.average = AveragedModel(twin.model)
            twin.start(self.steps)

    @precondition(lambda self: hasattr(self, "twins"))
    @invariant()
    def all_is_well(self) -> None:
        x = self.input(3)
        sparse, masked = self.twins
        for ours, theirs, nnz in zip(self.layers(0), self.layers(1), self.nnz, strict=True):
            topology = Topology.from_indices(ours.indices, (ours.out_features, ours.in_features))
            assert ours.nnz == topology.nnz == ours.values.shape[0] == nnz
            assert torch.equal(seal_of(topology), ours.seal)
            assert topology == theirs.topology
            torch.testing.assert_close(ours.values, theirs.gather(theirs.weight))
        with torch.no_grad():
            torch.testing.assert_close(sparse.model(x), masked.model(x))
            torch.testing.assert_close(sparse.average(x), masked.average(x))
        assert sparse.evolution.history == masked.evolution.history


LONG = {"max_examples": 2000, "stateful_step_count": 60}
SHORT = {"max_examples": 40, "stateful_step_count": 20, "derandomize": True}
TestLifeOfANetwork = LifeOfANetwork.TestCase
TestLifeOfANetwork.settings = settings(
    **(LONG if os.environ.get("TTS_LONG_TESTS") else SHORT),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
