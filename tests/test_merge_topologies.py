"""Merging: the average over the union of topologies, pruned by magnitude."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from evolving_network import LAYERS, seeded
from several_ranks import needs_gloo, on_ranks
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse.distributed import merge_ranks, merge_topologies

both_twins = pytest.mark.parametrize("layer_type", LAYERS)


def layer(seed: int, layer_type: Any = tts.TrulySparseLinear, nnz: int = 30, **more: Any) -> Any:
    made = layer_type(12, 10, nnz=nnz, generator=seeded(seed), **more)
    if made.bias is not None:
        nn.init.normal_(made.bias, generator=seeded(seed))
    return made


def model(seed: int, nnz: int = 30) -> nn.Sequential:
    torch.manual_seed(seed)
    made = nn.Sequential(layer(seed, nnz=nnz), nn.BatchNorm1d(10), nn.Linear(10, 12), layer(seed))
    made(torch.randn(8, 12))  # running statistics
    return made


def dense(part: tts.nn.SparseLayer) -> Tensor:
    weight = torch.zeros(part.out_features, part.in_features, dtype=torch.float64)
    weight[tuple(part.indices.long())] = part.gather(part.weight_parameter.detach()).double()
    return weight


def dense_merge(parts: list[tts.nn.SparseLayer], nnz: int) -> Tensor:
    """The oracle: a mean of dense matrices, of which the largest stay."""
    mean = torch.stack([dense(part) for part in parts]).mean(0).float()
    weakest = mean.abs().flatten().argsort()[: mean.numel() - nnz]
    return mean.flatten().index_fill(0, weakest, 0.0).view_as(mean).double()


@both_twins
@pytest.mark.parametrize("copies", [1, 2, 5])
@pytest.mark.parametrize("nnz", [None, 7, 30])
def test_a_layer_as_with_dense_matrices(layer_type: Any, copies: int, nnz: int | None) -> None:
    parts = [layer(seed, layer_type) for seed in range(copies)]
    before = copy.deepcopy(parts[0].state_dict())
    merged = merge_topologies(parts, nnz=nnz)
    assert type(merged) is layer_type
    assert merged.nnz == (nnz or 30)
    assert torch.equal(dense(merged), dense_merge(parts, nnz or 30))
    torch.testing.assert_close(merged.bias, torch.stack([part.bias for part in parts]).mean(0))
    assert all(torch.equal(parts[0].state_dict()[key], before[key]) for key in before)


def test_copies_of_different_sizes() -> None:
    parts = [layer(0, nnz=20), layer(1, nnz=50)]
    union = int(((dense(parts[0]) != 0) | (dense(parts[1]) != 0)).sum())
    merged = merge_topologies(parts, nnz=union)
    assert merged.nnz == union
    assert torch.equal(dense(merged), dense_merge(parts, union))
    with pytest.raises(ValueError, match=rf"at most the {union} connections in the union"):
        merge_topologies(parts, nnz=union + 1)
    with pytest.raises(ValueError, match=r"have \[20, 50\] connections: say with `nnz`"):
        merge_topologies(parts)


def test_equal_copies_give_themselves() -> None:
    first = model(3)
    merged = merge_topologies([first, copy.deepcopy(first), copy.deepcopy(first)])
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, merged.state_dict()[key]), key


def test_models_and_state_dicts_agree() -> None:
    models = [model(seed) for seed in range(3)]
    merged = merge_topologies(models, nnz={"0": 25})
    states = merge_topologies([each.state_dict() for each in models], nnz={"0": 25})
    assert list(states) == list(merged.state_dict())
    for key, tensor in merged.state_dict().items():
        assert torch.equal(tensor, states[key]), key
        assert tensor.dtype == states[key].dtype
    assert (merged[0].nnz, merged[3].nnz) == (25, 30)
    receiver = model(9)
    receiver.load_state_dict(states)
    assert receiver[0].nnz == 25


def test_what_is_dense_is_averaged_and_whole_numbers_are_the_first_ones() -> None:
    models = [model(seed) for seed in range(3)]
    models[1](torch.randn(8, 12))
    merged = merge_topologies(models)
    assert int(merged[1].num_batches_tracked) == 1
    for pick in (lambda m: m[1].running_var, lambda m: m[2].weight, lambda m: m[3].bias):
        expected = torch.stack([pick(m).detach() for m in models]).double().mean(0).float()
        assert torch.equal(pick(merged), expected)


def test_a_released_size_can_change_in_the_copy() -> None:
    parts = [layer(0), layer(1)]
    parts[0].nnz_fixed_by = "something"
    merged = merge_topologies(parts, nnz=12)
    assert merged.nnz == 12
    assert merged.nnz_fixed_by is None
    assert parts[0].nnz_fixed_by == "something"


def test_an_empty_layer() -> None:
    merged = merge_topologies([layer(seed, nnz=0) for seed in range(2)])
    assert merged.nnz == 0
    states = [layer(seed, nnz=0).state_dict() for seed in range(2)]
    assert merge_topologies(states)["indices"].shape == (2, 0)


def test_positions_beyond_32_bits() -> None:
    indices = [torch.tensor([[0, 2**31], [2**31, 5]]), torch.tensor([[0, 2**31], [7, 5]])]
    states = [{"indices": each, "values": torch.tensor([1.0, -2.0])} for each in indices]
    merged = merge_topologies(states)
    assert merged["indices"].tolist() == [[0, 2**31], [2**31, 5]]
    assert merged["values"].tolist() == [0.5, -2.0]


@pytest.mark.parametrize(
    ("copies", "settings", "error", "text"),
    [
        ([], {}, ValueError, "at least one copy"),
        (layer(0), {}, TypeError, "must be a list of copies, got TrulySparseLinear"),
        ([layer(0), layer(0).state_dict()], {}, TypeError, "must be an nn.Module"),
        ([layer(0).state_dict(), layer(0)], {}, TypeError, "must all be state dicts"),
        ([layer(0), model(0)], {}, ValueError, "one architecture"),
        ([layer(0), layer(0, bias=False)], {}, ValueError, "architecture: 'bias' is .* number 2"),
        ([layer(0), layer(0, tts.MaskedLinear)], {}, ValueError, "architecture: '' is Truly"),
        ([layer(0).state_dict(), {}], {}, ValueError, "architecture: 'bias' .* number 2"),
        ([layer(0)], {"nnz": 2.0}, TypeError, "`nnz` must be an int, got float"),
        ([layer(0)], {"nnz": -1}, ValueError, "must not be negative"),
        ([layer(0)], {"nnz": {"head": 3}}, ValueError, "names 'head', which is no sparse layer"),
    ],
    ids=str,
)
def test_what_cannot_be_merged(copies: Any, settings: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        merge_topologies(copies, **settings)


def merge_on_ranks(rank: int, size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, nnz in (("same", 30), ("different", 20 + 10 * rank)):
        mine = model(rank, nnz)
        values = mine[0].values
        merged = merge_ranks(mine, nnz=None if name == "same" else {"0": 33})
        assert merged is mine
        assert mine[0].values is values
        found[name] = dict(mine.state_dict())
    mine = model(rank, 20 + 10 * rank)
    before = [tensor.clone() for tensor in mine.state_dict().values()]
    errors = []
    for settings in ({}, {"nnz": 10**6}, {"nnz": rank}, {"nnz": {"x": 1}}):
        try:
            merge_ranks(mine, **settings)
        except ValueError as error:
            errors.append(str(error))
    mine[0].nnz_fixed_by = "a test"
    try:
        merge_ranks(mine, nnz={"0": 30})  # what rank 1 has
    except ValueError as error:
        errors.append(str(error))
    found["errors"] = errors
    found["unchanged"] = all(map(torch.equal, before, mine.state_dict().values()))
    return found


@needs_gloo
def test_ranks_merge_as_a_list_does(tmp_path: Path) -> None:
    ranks = on_ranks(merge_on_ranks, 3, tmp_path)
    expected = {
        "same": merge_topologies([model(rank) for rank in range(3)]),
        "different": merge_topologies(
            [model(rank, 20 + 10 * rank) for rank in range(3)], nnz={"0": 33}
        ),
    }
    texts = (
        r"have \[20, 30, 40\] connections",
        "at most the .* connections in the union of layer '0'",
        "`model` and `nnz` must be the same on all ranks",
        "names 'x', which is no sparse layer",
        "fixed by a test",
    )
    for found in ranks:
        for name, merged in expected.items():
            for key, tensor in merged.state_dict().items():
                # A sum over ranks adds in an order of its own.
                torch.testing.assert_close(found[name][key], tensor, rtol=1e-6, atol=1e-7)
                assert torch.equal(found[name][key], ranks[0][name][key])
            assert torch.equal(found[name]["0.indices"], merged[0].indices)
            assert torch.equal(found[name]["0.values"], merged[0].values)
        assert len(found["errors"]) == len(texts)
        for error, text in zip(found["errors"], texts, strict=True):
            with pytest.raises(AssertionError, match=text):
                raise AssertionError(error)
        assert found["unchanged"]
