"""The masked-dense twin: the same topology, weights, outputs, gradients and trajectory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles import VALUE_DTYPES, same_bits
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

import torch_truly_sparse as tts
from torch_truly_sparse import MaskedLinear, Topology, TrulySparseLinear

Kind = type[TrulySparseLinear] | type[MaskedLinear]
each_value_dtype = pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
each_nnz = pytest.mark.parametrize("nnz", [0, 1, 20, 54])


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def twins(nnz: int = 20, **options) -> tuple[TrulySparseLinear, MaskedLinear]:
    return tuple(
        kind(9, 6, nnz=nnz, generator=seeded(), **options)
        for kind in (TrulySparseLinear, MaskedLinear)
    )


@each_nnz
@each_value_dtype
@pytest.mark.parametrize(
    "init", ["linear_uniform", "he_uniform", "xavier_uniform", "set_normal", "zeros"]
)
def test_equal_generators_build_equal_twins(nnz, dtype, init):
    sparse, masked = twins(nnz, dtype=dtype, init=init)
    assert torch.equal(masked.indices, sparse.indices)
    assert same_bits(masked.gather(masked.weight), sparse.values)
    assert masked.nnz == sparse.nnz == masked.mask.sum()
    assert masked.density == sparse.density
    assert masked.weight.dtype == dtype
    assert (masked.weight[~masked.mask] == 0).all()
    seed = 8
    for layer in sparse, masked:
        layer.reset_topology(generator=seeded(seed))
        layer.reset_parameters("set_normal", generator=seeded(seed))
    assert torch.equal(masked.indices, sparse.indices)
    assert same_bits(masked.gather(masked.weight), sparse.values)


@each_nnz
@each_value_dtype
@pytest.mark.parametrize("leading", [(), (0,), (3,), (2, 3)])
def test_outputs_and_gradients_are_equal(nnz, dtype, leading):
    sparse, masked = twins(nnz, dtype=dtype)
    x = torch.randn(*leading, 9, dtype=dtype, requires_grad=True)
    own = x.detach().clone().requires_grad_()
    ours, theirs = sparse(x), masked(own)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(x.grad, own.grad)
    torch.testing.assert_close(sparse.values.grad, masked.gather(masked.weight.grad))
    torch.testing.assert_close(sparse.bias.grad, masked.bias.grad)
    assert (masked.weight.grad[~masked.mask] == 0).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@each_value_dtype
def test_from_sparse_copies(training, bias, dtype):
    sparse = TrulySparseLinear(9, 6, bias, nnz=20, dtype=dtype).train(training)
    if bias:
        nn.init.normal_(sparse.bias)
    masked = MaskedLinear.from_sparse(sparse)
    assert masked.training == training
    assert torch.equal(masked.indices, sparse.indices)
    assert torch.equal(masked.weight, sparse.to_dense().weight)
    assert (masked.bias is not None) == bias
    before = masked.weight.detach().clone(), masked.indices.clone()
    sparse.reset_topology()
    assert same_bits(masked.weight, before[0])
    assert torch.equal(masked.indices, before[1])


def test_from_sparse_keeps_flags_and_initializer():
    sparse = TrulySparseLinear(9, 6, nnz=20, init="xavier_uniform").requires_grad_(False)
    masked = MaskedLinear.from_sparse(sparse)
    assert masked.init == sparse.init
    assert not masked.weight.requires_grad
    assert not masked.bias.requires_grad


def test_from_sparse_wants_a_truly_sparse_layer():
    with pytest.raises(TypeError, match="`layer` must be a TrulySparseLinear, got Linear"):
        MaskedLinear.from_sparse(nn.Linear(3, 4))


def test_an_invalid_topology_changes_nothing():
    _, masked = twins()
    before = masked.mask.clone()
    for indices in (
        torch.zeros(2, 20).long(),
        torch.arange(6).expand(2, 6),
        torch.tensor([[9], [9]]),
    ):
        with pytest.raises(ValueError, match=r"`indices|`topology` must hold 20"):
            masked.replace_topology(Topology.from_indices(indices, (6, 9)))
    assert torch.equal(masked.mask, before)


def test_gather_and_scatter_are_inverse_in_the_order_of_the_topology():
    sparse, masked = twins()
    entries = torch.arange(1.0, 21)
    for layer in sparse, masked:
        tensor = torch.full_like(layer.weight_parameter, 7)
        layer.scatter_(tensor, entries)
        assert torch.equal(layer.gather(tensor), entries)
    rows, columns = sparse.indices.long()
    assert torch.equal(tensor[rows, columns], entries)
    assert tensor.count_nonzero() == 20


def test_a_masked_layer_made_on_meta_becomes_whole_by_reset_topology():
    masked = MaskedLinear(9, 6, nnz=20, device="meta").to_empty(device="cpu")
    masked.reset_topology(generator=seeded())
    assert torch.equal(masked.indices, twins()[1].indices)
    assert same_bits(masked.weight, twins()[1].weight)


# Trajectories: a network of either kind, the same data, 50 steps.

OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda model: SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3),
    "AdamW": lambda model: AdamW(model.parameters(), lr=3e-3),
}


def network(kind: Kind, dtype: torch.dtype) -> nn.Sequential:
    options = {"init": "he_uniform", "generator": seeded(), "dtype": dtype}
    return nn.Sequential(
        kind(20, 40, density=0.2, **options),
        nn.Tanh(),
        kind(40, 30, density=0.2, **options),
        nn.Tanh(),
        kind(30, 5, density=0.5, **options),
    )


def losses(
    kind: Kind, dtype: torch.dtype, optimizer: str, *, every: int | None
) -> tuple[Tensor, list[Tensor]]:
    """The loss of each step, and the topologies after the last."""
    model = network(kind, dtype)
    step = OPTIMIZERS[optimizer](model)
    if every is not None:
        evolution = tts.SparseEvolution(model, step, fraction=0.3, every=every, generator=seeded(4))
    data = seeded(5)
    x = torch.randn(50, 16, 20, generator=data, dtype=dtype)
    target = torch.randint(5, (50, 16), generator=data)
    history = []
    for batch, classes in zip(x, target, strict=True):
        step.zero_grad()
        loss = F.cross_entropy(model(batch), classes)
        loss.backward()
        step.step()
        history.append(loss.detach())
    if every is not None:
        assert len(evolution.history) == 49 // every
    return torch.stack(history), [layer.indices for layer in model if isinstance(layer, kind)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("dtype", "every", "rtol"), [(torch.float32, None, 1e-4), (torch.float64, 10, 1e-10)], ids=str
)
def test_twins_train_alike(optimizer, dtype, every, rtol):
    ours, topologies = losses(TrulySparseLinear, dtype, optimizer, every=every)
    theirs, masks = losses(MaskedLinear, dtype, optimizer, every=every)
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=0)
    assert not torch.isclose(ours[0], ours[-1], rtol=1e-2)  # it did train
    assert all(torch.equal(a, b) for a, b in zip(topologies, masks, strict=True))
    start = [layer.indices for layer in network(TrulySparseLinear, dtype)[::2]]
    unchanged = [torch.equal(a, b) for a, b in zip(topologies, start, strict=True)]
    assert unchanged == [every is None] * 3
