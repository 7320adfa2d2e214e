"""A long run of a small network: its memory stays as it was, and every invariant holds."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

import torch_truly_sparse as tts

from .children import Outcome

EVERY = 10  # steps between evolutions
CHECKED = 1000  # steps between checks
SETTLED = 0.2  # share of the run after which its memory may grow no more
ROOM = 8 << 20  # bytes by which it may: what Python's allocator keeps


def run(steps: range) -> Outcome:
    """Train for so many steps, with an evolution at every tenth, and check along the way."""
    torch.set_num_threads(1)
    outcome = Outcome()
    g = torch.Generator().manual_seed(steps.start)
    model = nn.Sequential(
        tts.TrulySparseLinear(100, 60, nnz=600, generator=g),
        nn.ReLU(),
        tts.TrulySparseLinear(60, 5, nnz=90, generator=g),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    evolution = tts.SparseEvolution(
        model, optimizer, prune="magnitude", regrow="gradient", every=EVERY, generator=g
    )
    x = torch.randn(200, 100, generator=g)
    target = x[:, :5].sign() * x[:, 5:10]
    settled = 0
    for number in range(1, len(steps) + 1):
        picked = torch.randint(200, (16,), generator=g)
        optimizer.zero_grad()
        (model(x[picked]) - target[picked]).square().mean().backward()
        optimizer.step()
        if number % CHECKED == 0 or number == len(steps):
            used = memory()
            settled = settled if settled and number > SETTLED * len(steps) else used
            line = problem(model, optimizer) or "invariants hold"
            if used > settled + ROOM:
                line = f"WRONG: memory grew from {settled:,} to {used:,} bytes"
            outcome.add(number, line)
    if len(evolution.history) != (len(steps) - 1) // EVERY:  # none after the last step
        outcome.add(len(steps), f"WRONG: {len(evolution.history)} evolutions")
    return outcome


def problem(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> str:
    """Say what is wrong with the network, if anything is."""
    for name, nnz in (("0", 600), ("2", 90)):
        layer = model.get_submodule(name)
        assert isinstance(layer, tts.TrulySparseLinear)
        if layer.nnz != nnz:
            return f"WRONG: layer {name} has {layer.nnz} connections"
        again = tts.Topology.from_indices(layer.indices.clone(), layer.topology.shape)
        fresh = tts.TrulySparseLinear.from_topology(again, layer.values.detach().clone(), None)
        dense = layer.to_dense().weight
        x = torch.randn(7, layer.in_features)
        with torch.no_grad():
            if not torch.allclose(fresh(x), x @ dense.t(), atol=1e-5):
                return f"WRONG: layer {name} computes something else than its dense form"
        state = optimizer.state[layer.values]
        if any(state[key].shape != (nnz,) for key in ("exp_avg", "exp_avg_sq")):
            return f"WRONG: the optimizer's state of layer {name} has another size"
        if not layer.values.isfinite().all():
            return f"WRONG: layer {name} holds numbers that are not finite"
    copied = copy.deepcopy(model)
    copied.load_state_dict(model.state_dict())
    return ""


def memory() -> int:
    """Return the bytes of main memory that this process occupies."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
