"""Models, from dense to truly sparse and back."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import all_same_bits, same_bits, valid_topology
from small_layers import seeded
from torch import nn
from torch.nn.utils import prune

import torch_truly_sparse as tts


class Net(nn.Module):
    """Every kind of place that a layer can stand in."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 12)
        self.body = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 12, bias=False))
        self.heads = nn.ModuleList([nn.Linear(12, 5), nn.Linear(12, 3)])
        self.again = self.body[0]
        self.norm = nn.LayerNorm(12)

    def forward(self, x):
        x = self.norm(self.body(self.embed(x)))
        return [head(x) for head in self.heads], self.again(x)


LINEARS = ["body.0", "body.2", "heads.0", "heads.1"]


def kinds(model: nn.Module) -> dict[str, str]:
    return {
        name: type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | tts.TrulySparseLinear)
    }


def sparse_layers(model: nn.Module) -> dict[str, tts.TrulySparseLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, tts.TrulySparseLinear)}


@pytest.mark.parametrize("inplace", [False, True])
def test_every_linear_layer_becomes_sparse_once_and_everywhere(inplace):
    model = Net()
    before = copy.deepcopy(model)
    sparse = tts.sparsify(model, density=0.25, inplace=inplace, generator=seeded())
    assert (sparse is model) == inplace
    assert kinds(sparse) == dict.fromkeys(LINEARS, "TrulySparseLinear")
    assert sparse.again is sparse.body[0]
    assert {name: layer.nnz for name, layer in sparse_layers(sparse).items()} == {
        "body.0": 90,
        "body.2": 90,
        "heads.0": 15,
        "heads.1": 9,
    }
    outputs, _ = sparse(torch.tensor([[1, 2]]))
    assert outputs[1].shape == (1, 2, 3)
    assert same_bits(sparse.embed.weight, before.embed.weight)
    if not inplace:
        assert all_same_bits(model.state_dict(), before.state_dict())
        assert kinds(model) == dict.fromkeys(LINEARS, "Linear")
        assert sparse.embed.weight is not model.embed.weight


def test_a_copy_never_copies_what_it_replaces(monkeypatch):
    model = Net()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            for parameter in layer.parameters():
                monkeypatch.setattr(
                    parameter, "__deepcopy__", lambda memo: pytest.fail("was copied"), raising=False
                )
    tts.sparsify(model, density=0.25)


def test_the_same_seed_gives_the_same_model():
    models = [tts.sparsify(Net(), density=0.3, generator=seeded(s)) for s in (1, 1, 2)]
    states = [{k: v for k, v in m.state_dict().items() if "values" in k} for m in models]
    assert all_same_bits(states[0], states[1])
    assert not all_same_bits(states[0], states[2])


def test_random_weights_start_at_the_scale_of_the_dense_layer():
    torch.manual_seed(1)
    layer = tts.sparsify(nn.Linear(400, 300), density=0.1, generator=seeded())
    fan_in = torch.bincount(layer.indices[0], minlength=300)[layer.indices[0].long()]
    scaled = layer.values.detach() * fan_in.sqrt()
    assert scaled.abs().max() <= 1
    assert scaled.std().item() == pytest.approx(3**-0.5, rel=0.03)  # of 12,000 draws


@pytest.mark.parametrize("init", ["random", "magnitude", "nonzero"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_belongs_to_a_layer_is_kept(init, dtype):
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 5, bias=False)).to(dtype)
    with torch.no_grad():
        model[0].weight[::2] = 0
        model[1].weight[::2] = 0
    model[0].weight.requires_grad_(False)
    model[0].eval()
    model[1].weight.requires_grad_(True)
    how = {} if init == "nonzero" else {"density": 0.5}
    sparse = tts.sparsify(model, init=init, **how)
    assert sparse[0].values.dtype == sparse[0].bias.dtype == dtype
    assert same_bits(sparse[0].bias, model[0].bias)
    assert sparse[0].bias is not model[0].bias
    assert not sparse[0].values.requires_grad
    assert sparse[0].bias.requires_grad
    assert not sparse[0].training
    assert sparse[1].training
    assert sparse[1].values.requires_grad
    assert sparse[1].bias is None


@pytest.mark.parametrize("init", ["magnitude", "nonzero"])
def test_trained_weights_stay_where_they_were(init):
    model = Net()
    if init == "nonzero":
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight[torch.rand(layer.weight.shape) < 0.7] = 0
    sparse = tts.sparsify(model, init=init, **({"density": 0.3} if init == "magnitude" else {}))
    for name, layer in sparse_layers(sparse).items():
        weight = model.get_submodule(name).weight
        there = layer.weight.to_dense() != 0
        assert torch.equal(layer.weight.to_dense(), torch.where(there, weight, 0))
        if init == "magnitude":
            assert layer.nnz == round(0.3 * weight.numel())
            assert weight[there].abs().min() >= weight[~there].abs().max()
        else:
            assert torch.equal(there, weight != 0)


def test_magnitude_keeps_the_largest_of_each_unit_with_a_fixed_fan_in():
    model = nn.Linear(10, 4)
    sparse = tts.sparsify(model, density=0.3, distribution="fixed_fan_in", init="magnitude")
    largest = model.weight.abs().topk(3, dim=1).indices.sort(1).values
    assert torch.equal(sparse.indices[1].view(4, 3).long(), largest)


def test_connections_are_shared_out_as_the_distribution_says():
    shapes = [(30, 12), (12, 30), (5, 12), (3, 12)]
    model = tts.sparsify(Net(), density=0.5, distribution="erdos_renyi")
    counts = tts.topology.ErdosRenyi(density=0.5).counts(shapes)
    assert [row.nnz for row in tts.summary(model).rows] == counts
    assert sum(counts) == round(0.5 * sum(out * in_ for out, in_ in shapes))
    model = tts.sparsify(Net(), epsilon=2)
    assert model.body[0].nnz == 2 * 42
    model = tts.sparsify(Net(), distribution=tts.topology.FixedFanIn(0.25))
    assert torch.bincount(model.heads[0].indices[0]).tolist() == [3] * 5


def test_a_layer_that_keeps_everything_stays_dense():
    model = Net()
    sparse = tts.sparsify(model, density=0.25, per_layer={"heads.*": 1.0})
    assert kinds(sparse)["heads.0"] == kinds(sparse)["heads.1"] == "Linear"
    assert same_bits(sparse.heads[0].weight, model.heads[0].weight)
    assert kinds(tts.sparsify(model, epsilon=20)) == kinds(model)
    assert kinds(tts.sparsify(model, init="nonzero")) == kinds(model)


def test_globs_leave_layers_alone_and_set_single_densities():
    sparse = tts.sparsify(
        Net(), density=0.5, exclude=["heads"], per_layer={"*.0": 0.1, "body": 0.2}
    )
    assert kinds(sparse)["heads.0"] == kinds(sparse)["heads.1"] == "Linear"
    assert sparse.body[0].nnz == 36  # the first glob that matches counts
    assert sparse.body[2].nnz == 72
    # A layer is known by all of its names.
    assert kinds(tts.sparsify(Net(), density=0.5, exclude=["again"]))["body.0"] == "Linear"


def test_single_densities_have_no_share_in_what_the_others_get():
    sparse = tts.sparsify(Net(), density=0.2, distribution="erdos_renyi", per_layer={"body.2": 0.1})
    others = [sparse.body[0], sparse.heads[0], sparse.heads[1]]
    assert sparse.body[2].nnz == 36
    assert sum(layer.nnz for layer in others) == round(0.2 * (360 + 60 + 36))


@pytest.mark.parametrize("init", ["magnitude", "nonzero", "random"])
def test_pruning_masks_are_understood_and_gone(init):
    model = nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 4))
    prune.l1_unstructured(model[0], "weight", amount=0.6)
    prune.random_unstructured(model[0], "bias", amount=0.5)
    prune.random_unstructured(model[2], "weight", amount=0.5)
    prune.ln_structured(model[2], "weight", amount=0.25, n=2, dim=0)  # makes a container
    model[2].weight_orig.requires_grad_(False)
    x = torch.randn(3, 9)
    expected, weight = model(x), model[0].weight.detach().clone()
    how = {} if init == "nonzero" else {"density": 0.2}
    sparse = tts.sparsify(model, init=init, inplace=True, **how)
    assert sorted(sparse.state_dict()) == [
        f"{layer}.{name}" for layer in "02" for name in ("bias", "indices", "seal", "values")
    ]
    assert not sparse[0]._forward_pre_hooks
    assert (sparse[0].bias == 0).sum() == 3
    assert not sparse[2].values.requires_grad
    if init == "nonzero":
        torch.testing.assert_close(sparse(x), expected)
        assert sparse[0].nnz == 54 - round(0.6 * 54)
    if init == "magnitude":
        assert sparse[0].values.abs().min() >= weight.abs().flatten().topk(11).values[-1]


def test_a_weight_of_0_under_a_mask_stays_a_connection():
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight[0, 0] = 0
    mask = torch.tensor([[True, False, True], [False, True, False]])
    prune.custom_from_mask(linear, "weight", mask)
    sparse = tts.sparsify(linear, init="nonzero")
    assert sparse.indices.tolist() == [[0, 0, 1], [0, 2, 1]]
    assert sparse.values[0] == 0


def test_what_is_sparse_already_stays():
    first = tts.sparsify(Net(), density=0.2, exclude=["heads"], generator=seeded())
    second = tts.sparsify(first, density=0.5)
    assert same_bits(first.body[0].values, second.body[0].values)
    assert second.heads[0].nnz == 30


def test_a_converted_model_trains_and_evolves():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 2))
    model = tts.sparsify(model, density=0.3, exclude=["2"], generator=seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    evolution = tts.SparseEvolution(model, optimizer, every=20, generator=seeded())
    x = torch.randn(64, 10)
    y = (x[:, 0] > 0).long()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(model(x), y))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]
    assert len(evolution.history) == 2
    assert model[0].nnz == 120
    assert valid_topology(model[0].indices, 40, 10)


@pytest.mark.parametrize("inplace", [False, True])
def test_densify_is_the_inverse(inplace):
    sparse = tts.sparsify(Net(), density=0.3, exclude=["heads.1"], generator=seeded())
    sparse.body[0].values.requires_grad_(False)
    sparse.body[0].eval()
    x = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = sparse(x)
    weight = sparse.body[0].weight.to_dense().detach()
    dense = tts.densify(sparse, inplace=inplace)
    assert (dense is sparse) == inplace
    assert kinds(dense) == dict.fromkeys(LINEARS, "Linear")
    assert dense.again is dense.body[0]
    assert torch.equal(dense.body[0].weight, weight)
    assert not dense.body[0].weight.requires_grad
    assert not dense.body[0].training
    with torch.no_grad():
        torch.testing.assert_close(dense(x), expected)
    back = tts.sparsify(dense, init="nonzero", exclude=["heads.1"])
    assert torch.equal(back.body[0].weight.to_dense(), weight)


def test_densify_leaves_what_is_excluded():
    sparse = tts.sparsify(Net(), density=0.3)
    assert kinds(tts.densify(sparse, exclude=["body"]))["body.2"] == "TrulySparseLinear"


def test_layers_with_fewer_connections_than_outputs_are_warned_of():
    net = nn.Sequential(nn.Linear(2000, 24), nn.ReLU(), nn.Linear(24, 2))
    with pytest.warns(UserWarning, match=r"'2' \(2 x 24\) gets 0.*`exclude`"):
        sparse = tts.sparsify(net, density=0.01)
    assert sparse[2].nnz == 0
    tts.sparsify(net, density=0.01, exclude=["2"])  # no warning: it would be an error here
