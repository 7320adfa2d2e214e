"""What people do with any `nn.Module`: hooks, checkpointing, processes, optimizers, utilities."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from oracles import all_same_bits, random_mask, same_bits
from small_layers import of_mask, small
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear


def network() -> nn.Sequential:
    return nn.Sequential(
        of_mask(random_mask(12, 9, 40)), nn.Tanh(), of_mask(random_mask(6, 12, 30, seed=2))
    )


# Hooks


def test_forward_and_backward_hooks_see_what_they_see_of_a_dense_layer():
    layer = small()
    seen: list[list[Tensor]] = []
    for module in layer, layer.to_dense():
        log: list[Tensor] = []
        module.register_forward_pre_hook(lambda _, args, log=log: log.extend(args))
        module.register_forward_hook(lambda _, args, y, log=log: log.extend([*args, y]))
        module.register_full_backward_pre_hook(lambda _, dy, log=log: log.extend(dy))
        module.register_full_backward_hook(lambda _, dx, dy, log=log: log.extend([*dx, *dy]))
        module(torch.ones(3, 9).requires_grad_()).square().sum().backward()
        seen.append(log)
    assert len(seen[0]) == 6
    torch.testing.assert_close(*seen)


def test_hooks_may_change_what_flows():
    layer, x = small(), torch.randn(3, 9)
    expected = 2 * layer(3 * x)
    layer.register_forward_pre_hook(lambda _, args: (3 * args[0],))
    layer.register_forward_hook(lambda _, args, y: 2 * y)
    torch.testing.assert_close(layer(x), expected)
    layer.values.register_hook(torch.zeros_like)
    layer(x).sum().backward()
    assert not layer.values.grad.any()


def test_state_dict_hooks():
    layer = small()
    layer.register_state_dict_post_hook(lambda m, state, prefix, _: state.update(extra=1))
    assert layer.state_dict()["extra"] == 1


# Recomputation


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant):
    model, x = network(), torch.randn(20, 9).requires_grad_()
    expected = torch.autograd.grad(model(x).square().sum(), (x, *model.parameters()))
    y = checkpoint(model, x, use_reentrant=reentrant)
    y.square().sum().backward()
    assert same_bits(x.grad, expected[0])
    for parameter, gradient in zip(model.parameters(), expected[1:], strict=True):
        assert same_bits(parameter.grad, gradient)


@pytest.mark.parametrize("changed", ["topology", "values"])
def test_a_graph_of_a_weight_that_has_changed_is_refused(changed):
    layer = small()
    loss = layer(torch.randn(3, 9).requires_grad_()).sum()
    if changed == "topology":
        layer.reset_topology()
    else:
        nn.init.normal_(layer.values)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_saved_tensor_hooks():
    model, x = network(), torch.randn(20, 9).requires_grad_()
    expected = torch.autograd.grad(model(x).sum(), x)[0]
    with torch.autograd.graph.save_on_cpu():
        y = model(x)
    assert same_bits(torch.autograd.grad(y.sum(), x)[0], expected)


def test_anomaly_mode_is_quiet():
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        network()(torch.randn(3, 9)).sum().backward()


# Processes


class Features(Dataset):
    """Samples that a sparse layer computes."""

    def __init__(self, layer: TrulySparseLinear) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        with torch.no_grad():
            return self.layer(torch.full((9,), float(i)))


def _raise_all(shared: TrulySparseLinear, own: TrulySparseLinear) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        shared.values += 1
        own.values += 1
    own(torch.ones(20, 9).requires_grad_()).sum().backward()
    assert own.values.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_data_loader(context):
    layer = small()
    layer(torch.ones(20, 9).requires_grad_()).sum().backward()
    layer.zero_grad()
    loader = DataLoader(
        Features(layer), batch_size=2, num_workers=1, multiprocessing_context=context
    )
    with torch.no_grad():
        expected = layer(torch.arange(4.0)[:, None].expand(4, 9))
    torch.testing.assert_close(torch.cat(list(loader)), expected)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_shared_memory():
    layer, own = small().share_memory(), small()
    assert layer.values.is_shared()
    assert layer.indices.is_shared()
    before = layer.values.detach().clone()
    child = torch.multiprocessing.get_context("fork").Process(target=_raise_all, args=(layer, own))
    child.start()
    try:
        child.join()
    finally:
        child.kill()  # does nothing to a process that has ended
    assert child.exitcode == 0
    assert same_bits(layer.values, before + 1)
    torch.testing.assert_close(layer(torch.ones(2, 9)), layer.to_dense()(torch.ones(2, 9)))


# Optimizers and utilities


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.LBFGS(p, lr=0.1),
        lambda p: torch.optim.Adam(p, foreach=True),
        lambda p: torch.optim.Adam(p, fused=True),
        lambda p: torch.optim.SGD(p, lr=0.1, nesterov=True, momentum=0.9),
        torch.optim.Rprop,
        torch.optim.Adafactor,
    ],
)
def test_optimizers(make):
    model, x = network(), torch.randn(20, 9)
    optimizer = make(list(model.parameters()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses[-1] < losses[0]


def test_muon_says_that_it_takes_matrices():
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        torch.optim.Muon(small().parameters())


def test_clipping_and_vectors_of_parameters():
    model = network()
    model(torch.randn(20, 9)).square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    expected = torch.cat([g.flatten() for g in gradients]).norm()
    torch.testing.assert_close(norm, expected)
    assert same_bits(model[0].values.grad, gradients[0] * (0.5 / (norm + 1e-6)).clamp(max=1))
    nn.utils.clip_grad_value_(model.parameters(), 0.01)
    vector = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(2 * vector, model.parameters())
    assert same_bits(nn.utils.parameters_to_vector(model.parameters()), 2 * vector)
    x = torch.randn(3, 9)
    torch.testing.assert_close(model[0](x), model[0].to_dense()(x))
    model[0].reset_topology()  # its values are a view now
    torch.testing.assert_close(model[0](x), model[0].to_dense()(x))


@pytest.mark.parametrize(
    "init",
    [nn.init.normal_, nn.init.uniform_, nn.init.zeros_, nn.init.trunc_normal_,
     lambda values: nn.init.constant_(values, 2.0)],
)  # fmt: skip
def test_torch_init_writes_the_values(init):
    layer, x = small(), torch.randn(3, 9)
    values = layer.values
    assert init(layer.values) is values
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_inits_that_need_fans_are_refused_by_torch():
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        nn.init.kaiming_uniform_(small().values)


def test_to_meta_and_back():
    layer = small().to("meta")
    assert layer(torch.ones(4, 9, device="meta")).shape == (4, 6)
    assert layer.to_empty(device="cpu").indices.device.type == "cpu"
    layer.reset_topology()
    torch.testing.assert_close(layer(torch.ones(4, 9)), layer.to_dense()(torch.ones(4, 9)))


# What rewrites the parameters of a module


class Twice(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return 2 * values


REFUSED = {
    "parametrize values": (
        lambda m: parametrize.register_parametrization(m, "values", Twice()),
        TypeError, "`values` cannot be deleted or parametrized",
    ),
    "parametrize indices": (
        lambda m: parametrize.register_parametrization(m, "indices", nn.Identity()),
        TypeError, "`indices` cannot be deleted or parametrized",
    ),
    "parametrize weight": (
        lambda m: parametrize.register_parametrization(m, "weight", Twice()),
        ValueError, "does not have a parameter, a buffer, or a parametrized element .* 'weight'",
    ),
    "weight_norm": (parametrizations.weight_norm, ValueError, "does not have a parameter"),
    "weight_norm of values": (
        lambda m: parametrizations.weight_norm(m, "values"), TypeError, "functional_call",
    ),
    "orthogonal": (parametrizations.orthogonal, ValueError, "does not have a parameter"),
    "spectral_norm": (parametrizations.spectral_norm, NotImplementedError, "Sparse"),
    "spectral_norm of values": (
        lambda m: parametrizations.spectral_norm(m, "values"), TypeError, "functional_call",
    ),
    "old weight_norm": (nn.utils.weight_norm, KeyError, "weight"),
    "old spectral_norm": (nn.utils.spectral_norm, KeyError, "weight"),
    "prune weight": (
        lambda m: prune.l1_unstructured(m, "weight", 0.2), TypeError, "cannot assign",
    ),
    "delete": (lambda m: delattr(m, "values"), TypeError, "cannot be deleted"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize(("rewrite", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_rewriting_the_weight_is_refused_and_changes_nothing(rewrite, error, text):
    layer, x = small(), torch.randn(20, 9).requires_grad_()
    y, before = layer(x), copy.deepcopy(layer.state_dict())
    parameters = list(layer.parameters())
    with pytest.raises(error, match=text):
        rewrite(layer)
    assert type(layer) is TrulySparseLinear
    assert all_same_bits(layer.state_dict(), before)
    assert all(p is q for p, q in zip(layer.parameters(), parameters, strict=True))
    assert same_bits(layer(x), y)
    pickle.loads(pickle.dumps(layer))(x).sum().backward()


def test_a_function_of_the_values_is_computed_by_functional_call():
    layer, x = small(), torch.randn(20, 9)
    lent = {"values": layer.values.tanh()}
    torch.func.functional_call(layer, lent, (x,)).sum().backward()
    gradient = layer.values.grad.clone()
    dense = layer.to_dense()
    mask = dense.weight != 0
    nn.functional.linear(x, dense.weight.tanh(), dense.bias).sum().backward()
    torch.testing.assert_close(gradient, dense.weight.grad[mask])


def test_the_bias_may_be_parametrized():
    layer, x = small(), torch.randn(3, 9)
    bias = layer.bias.detach().clone()
    y = layer(x)
    parametrize.register_parametrization(layer, "bias", Twice())
    torch.testing.assert_close(layer(x), y + bias)
    parametrize.remove_parametrizations(layer, "bias")
    torch.testing.assert_close(layer(x), y + bias)


def test_torch_pruning_masks_values_within_the_topology():
    layer, x = small(), torch.randn(3, 9)
    prune.l1_unstructured(layer, "values", 5)
    assert layer.nnz == 20
    assert int((layer.values == 0).sum()) == 5
    layer(x).sum().backward()
    assert layer.values_orig.grad.shape == (20,)
    prune.remove(layer, "values")
    assert isinstance(layer.values, nn.Parameter)
    receiver = small()
    receiver.load_state_dict(layer.state_dict())
    assert same_bits(receiver(x), layer(x))


def test_a_parameter_list_of_values_evolves_no_less():
    model = network()
    optimizer = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1)
    evolution = tts.SparseEvolution(model, optimizer, fraction=0.3)
    before = model[0].indices.clone()
    model(torch.randn(4, 9)).sum().backward()
    optimizer.step()
    evolution.step()
    assert not torch.equal(model[0].indices, before)


def _named(model: nn.Module) -> Iterator[str]:
    return (name for name, _ in model.named_parameters())


def test_names_of_parameters_and_buffers_are_those_of_the_documentation():
    assert list(_named(network())) == ["0.values", "0.bias", "2.values", "2.bias"]
    assert [name for name, _ in network().named_buffers()] == [
        "0.indices",
        "0.seal",
        "2.indices",
        "2.seal",
    ]
