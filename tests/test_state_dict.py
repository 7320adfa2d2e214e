"""Saving, loading and copying of layers: the topology travels with its values."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from oracles import all_same_bits, same_bits
from torch import Tensor, nn

from torch_truly_sparse import MaskedLinear, TrulySparseLinear, ops

NNZ = 40
each_layer = pytest.mark.parametrize("kind", [TrulySparseLinear, MaskedLinear])
# As many connections as the receiver has, fewer, more, none, all.
each_nnz = pytest.mark.parametrize("nnz", [NNZ, 25, 90, 0, 108])


def layer_of(seed: int, nnz: int = NNZ, kind: type = TrulySparseLinear, **options):
    generator = torch.Generator().manual_seed(seed)
    layer = kind(12, 9, nnz=nnz, generator=generator, **options)
    nn.init.normal_(layer.bias)
    return layer


def through_a_file(thing: object, **options) -> object:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, **options)


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in state.items()}


def assert_equal_layers(a: nn.Module, b: nn.Module) -> None:
    """The same saved state, outputs and gradients, bit for bit."""
    assert type(a) is type(b)
    assert all_same_bits(a.state_dict(), b.state_dict())
    x = torch.randn(5, 12, dtype=a.bias.dtype)
    results = []
    for layer in a, b:
        own = x.clone().requires_grad_()
        y = layer(own)
        weight = layer.weight_parameter
        results.append((y, *torch.autograd.grad(y.square().sum(), (own, weight, layer.bias))))
    assert all(same_bits(p, q) for p, q in zip(*results, strict=True))
    assert torch.equal(a.indices, b.indices)
    assert a.nnz == b.nnz


# Loading


def test_state_holds_topology_and_weights_and_nothing_derived():
    layer = layer_of(0)
    layer(torch.ones(2, 12, requires_grad=True)).sum().backward()
    assert list(layer.state_dict()) == ["values", "bias", "indices", "seal"]
    assert list(layer_of(0, kind=MaskedLinear).state_dict()) == ["weight", "bias", "mask"]


@each_layer
@each_nnz
def test_a_layer_of_another_seed_and_size_becomes_the_saved_one(kind, nnz):
    saved, receiver = layer_of(1, nnz, kind), layer_of(2, kind=kind)
    receiver(torch.ones(2, 12, requires_grad=True)).sum().backward()
    kept = receiver.weight_parameter, receiver.bias
    state = through_a_file(saved.state_dict(), weights_only=True)
    result = receiver.load_state_dict(state)
    assert not result.missing_keys
    assert not result.unexpected_keys
    receiver.zero_grad()
    assert_equal_layers(saved, receiver)
    assert receiver.weight_parameter is kept[0]
    assert receiver.bias is kept[1]
    assert receiver.values.shape == (nnz,) if kind is TrulySparseLinear else True


@each_nnz
def test_assigned_state_is_the_saved_layer(nnz):
    saved, receiver = layer_of(1, nnz), layer_of(2)
    state = copied(saved.state_dict())
    receiver.load_state_dict(state, assign=True)
    assert_equal_layers(saved, receiver)
    assert receiver.values.data_ptr() == state["values"].data_ptr()
    assert isinstance(receiver.values, nn.Parameter)
    state["indices"].zero_()  # the dictionary's own, as everywhere
    assert_equal_layers(saved, receiver)


@each_nnz
def test_assigning_makes_a_layer_on_meta_whole(nnz):
    saved, receiver = layer_of(1, nnz), layer_of(2, device="meta")
    receiver.load_state_dict(copied(saved.state_dict()), assign=True)
    assert_equal_layers(saved, receiver)


@each_nnz
def test_an_emptied_layer_is_made_whole_by_loading(nnz):
    saved, receiver = layer_of(1, nnz), layer_of(2, device="meta").to_empty(device="cpu")
    receiver.load_state_dict(saved.state_dict())
    assert_equal_layers(saved, receiver)


@pytest.mark.parametrize("assign", [False, True])
def test_wide_indices_are_narrowed(assign):
    saved, receiver = layer_of(1, 50), layer_of(2)
    state = {**copied(saved.state_dict()), "indices": saved.indices.long()}
    receiver.load_state_dict(state, assign=assign)
    assert receiver.indices.dtype == torch.int32
    assert_equal_layers(saved, receiver)


def test_loading_copies():
    saved, receiver = layer_of(1), layer_of(2)
    state = copied(saved.state_dict())
    receiver.load_state_dict(state)
    for tensor in state.values():
        tensor.zero_()
    assert_equal_layers(saved, receiver)


def test_values_are_converted_to_the_dtype_of_the_receiver():
    saved, receiver = layer_of(1, 50), layer_of(2, dtype=torch.float64)
    receiver.load_state_dict(saved.state_dict())
    assert receiver.values.dtype == torch.float64
    assert torch.equal(receiver.values.detach(), saved.values.detach().double())


def test_frozen_layers_stay_frozen():
    saved, receiver = layer_of(1, 50), layer_of(2).requires_grad_(False)
    receiver.load_state_dict(saved.state_dict())
    assert not receiver.values.requires_grad
    receiver(torch.ones(2, 12))


def test_gradients_of_another_size_are_dropped_and_others_kept():
    receiver = layer_of(2)
    receiver(torch.ones(2, 12)).sum().backward()
    gradient = receiver.values.grad.clone()
    receiver.load_state_dict(layer_of(1).state_dict())
    assert same_bits(receiver.values.grad, gradient)
    receiver.load_state_dict(layer_of(1, 50).state_dict())
    assert receiver.values.grad is None


def test_a_model_finds_its_layers_by_prefix():
    def model(seed: int, nnz: int) -> nn.Module:
        inner = nn.Sequential(layer_of(seed, nnz), nn.ReLU(), nn.Linear(9, 4))
        return nn.ModuleDict({"body": inner, "head": layer_of(seed + 1, 30)})

    saved, receiver = model(1, 50), model(3, 40)
    receiver.load_state_dict(through_a_file(saved.state_dict(), weights_only=True))
    assert all_same_bits(saved.state_dict(), receiver.state_dict())
    assert_equal_layers(saved["body"][0], receiver["body"][0])


def test_a_bias_alone_loads_where_partial_states_are_allowed():
    receiver = layer_of(2)
    before = copied(receiver.state_dict())
    result = receiver.load_state_dict({"bias": torch.ones(9)}, strict=False)
    assert sorted(result.missing_keys) == ["indices", "seal", "values"]
    assert (receiver.bias == 1).all()
    assert all_same_bits({**before, "bias": torch.ones(9)}, receiver.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key"):
        receiver.load_state_dict({"bias": torch.zeros(9)})


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("missing", ["indices", "values"])
def test_values_without_positions_are_refused_and_change_nothing(strict, missing):
    saved, receiver = layer_of(1, 50), layer_of(2)
    before = copied(receiver.state_dict())
    state = saved.state_dict()
    del state[missing]
    with pytest.raises(RuntimeError, match=f"`{missing}` is missing: values mean nothing without"):
        receiver.load_state_dict(state, strict=strict)
    assert all_same_bits(before, receiver.state_dict())


# Corrupt states


def _corrupt(change: str) -> dict[str, Tensor]:
    state = copied(layer_of(1, 50).state_dict())
    indices, values = state["indices"], state["values"]
    state |= {
        "out of range": lambda: {"indices": indices + 9},
        "negative": lambda: {"indices": indices - 12},
        "huge": lambda: {"indices": indices.long() + 2**32},
        "unsorted": lambda: {"indices": indices.flip(1)},
        "duplicate": lambda: {"indices": indices[:, :1].expand(2, 50)},
        "floating": lambda: {"indices": indices.float()},
        "flat": lambda: {"indices": indices.flatten()},
        "transposed": lambda: {"indices": indices.t()},
        "sparse": lambda: {"indices": indices.to_sparse()},
        "too few values": lambda: {"values": values[:-1]},
        "matrix of values": lambda: {"values": values[None]},
        "values of a list": lambda: {"values": values.tolist()},
        "bias of another size": lambda: {"bias": torch.ones(8)},
        "bias of a number": lambda: {"bias": 3.0},
        "sparse values": lambda: {"values": values.to_sparse()},
        "values on meta": lambda: {"values": values.to("meta")},
        "all on meta": lambda: {k: v.to("meta") for k, v in state.items()},
    }[change]()
    return state


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("out of range", ValueError),
        ("negative", ValueError),
        ("huge", ValueError),
        ("unsorted", ValueError),
        ("duplicate", ValueError),
        ("floating", TypeError),
        ("flat", ValueError),
        ("transposed", ValueError),
        ("sparse", TypeError),
        ("too few values", ValueError),
        ("matrix of values", ValueError),
        ("values of a list", (ValueError, TypeError)),
        ("bias of another size", (ValueError, RuntimeError)),
        ("bias of a number", TypeError),
        ("sparse values", ValueError),
        ("values on meta", ValueError),
        ("all on meta", ValueError),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.filterwarnings("ignore:for .*meta parameter")
def test_a_corrupt_state_is_refused_and_changes_nothing(change, error, strict):
    receiver, x = layer_of(2), torch.randn(3, 12)
    y, before = receiver(x), copied(receiver.state_dict())
    with pytest.raises(error):
        receiver.load_state_dict(_corrupt(change), strict=strict)
    assert all_same_bits(before, receiver.state_dict())
    assert same_bits(receiver(x), y)


@pytest.mark.parametrize("key", ["values", "bias"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64], ids=str)
def test_what_cannot_be_trained_is_not_assigned(key, dtype):
    receiver, state = layer_of(2), layer_of(1, 50).state_dict()
    before = copied(receiver.state_dict())
    state[key] = state[key].to(dtype)
    with pytest.raises(TypeError, match=f"`{key}` must be of floating point to be assigned"):
        receiver.load_state_dict(state, assign=True)
    assert all_same_bits(before, receiver.state_dict())


@pytest.mark.parametrize("change", ["out of range", "unsorted", "duplicate", "too few values"])
def test_a_corrupt_state_cannot_be_assigned_either(change):
    receiver, x = layer_of(2), torch.randn(3, 12)
    y, before, values = receiver(x), copied(receiver.state_dict()), receiver.values
    with pytest.raises(ValueError, match=r"indices|values"):
        receiver.load_state_dict(_corrupt(change), assign=True)
    assert all_same_bits(before, receiver.state_dict())
    assert receiver.values is values
    assert same_bits(receiver(x), y)


def test_a_layer_of_other_sizes_refuses_the_state():
    state = layer_of(1, 50).state_dict()
    for sizes in (12, 3), (3, 9):
        receiver = TrulySparseLinear(*sizes, nnz=5)
        before = copied(receiver.state_dict())
        with pytest.raises(ValueError, match=r"is outside"):
            receiver.load_state_dict(state)
        assert all_same_bits(before, receiver.state_dict())


# Copies


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": lambda layer: through_a_file(layer, weights_only=False),
}


@each_layer
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("used", [False, True])
def test_a_copy_is_equal_and_independent(kind, make, used):
    layer = layer_of(1, kind=kind, init="xavier_uniform").eval()
    if used:
        layer(torch.ones(2, 12, requires_grad=True)).sum().backward()
        layer.zero_grad()
    twin = make(layer)
    assert_equal_layers(layer, twin)
    assert twin.training is False
    assert twin.init == layer.init
    before = copied(layer.state_dict())
    twin.reset_topology()
    twin(torch.ones(2, 12)).sum().backward()
    torch.optim.SGD(twin.parameters(), lr=1).step()
    assert all_same_bits(before, layer.state_dict())
    assert not torch.equal(twin.indices, layer.indices)
    assert layer.weight_parameter.grad is None


def test_a_copy_is_followed_after_changes_of_its_own():
    layer = layer_of(1)
    layer(torch.ones(2, 12, requires_grad=True))
    twin = copy.deepcopy(layer)
    x = torch.randn(3, 12)
    twin.indices.copy_(layer_of(5).indices)
    twin.seal.copy_(layer_of(5).seal)
    with pytest.warns(UserWarning, match="another topology was copied over"):
        torch.testing.assert_close(twin(x), twin.to_dense()(x))
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_a_pickle_holds_nothing_derived():
    layer = layer_of(1)
    fresh = len(pickle.dumps(layer))
    layer(torch.ones(2, 12, requires_grad=True))
    assert len(pickle.dumps(layer)) == fresh


def test_a_model_copied_with_its_optimizer_goes_on_alike():
    model = nn.Sequential(layer_of(1), nn.ReLU(), nn.Linear(9, 3))
    optimizer = torch.optim.Adam(model.parameters())

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(4, 12)).square().sum().backward()
        optimizer.step()

    step(model, optimizer)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    assert twin_optimizer.param_groups[0]["params"][0] is twin[0].values
    step(model, optimizer)
    step(twin, twin_optimizer)
    assert all_same_bits(model.state_dict(), twin.state_dict())


def test_row_pointers_are_derived_again_in_a_copy():
    twin = copy.deepcopy(layer_of(1))
    twin(torch.ones(1, 12))
    assert torch.equal(twin.topology.row_pointers, ops.compress(twin.indices, (9, 12)))
