"""What `torch.func` and forward mode make of a sparse layer is what they make of a dense one."""

from __future__ import annotations

import pytest
import torch
from oracles import OperatorLog, same_bits
from small_layers import small
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from torch_truly_sparse import TrulySparseLinear

# torch's forward mode scripts its own decompositions when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
each_batch = pytest.mark.parametrize("batch", [1, 4, 20])


def twins() -> tuple[TrulySparseLinear, nn.Linear, Tensor]:
    """A layer, its dense twin, and where the connections are."""
    layer = small(dtype=torch.float64)
    mask = torch.zeros(6, 9, dtype=torch.bool)
    mask[layer.indices[0].long(), layer.indices[1].long()] = True
    return layer, layer.to_dense(), mask


def parameters(layer: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in layer.named_parameters()}


def loss_of(layer: nn.Module):
    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, parameters, (x,)).tanh().square().sum()

    return loss


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], mask: Tensor) -> None:
    torch.testing.assert_close(ours["values"], theirs["weight"][..., mask])
    torch.testing.assert_close(ours["bias"], theirs["bias"])


@each_batch
def test_grad(batch):
    layer, dense, mask = twins()
    x = torch.randn(batch, 9).double()
    ours, theirs = (grad(loss_of(m), argnums=(0, 1))(parameters(m), x) for m in (layer, dense))
    assert_close(ours[0], theirs[0], mask)
    torch.testing.assert_close(ours[1], theirs[1])


def test_grad_equals_that_of_backward_bit_for_bit():
    layer, _, _ = twins()
    x = torch.randn(5, 9).double()
    ours = grad(loss_of(layer))(parameters(layer), x)
    gradients = torch.autograd.grad(
        layer(x).tanh().square().sum(), (layer.values, layer.bias), create_graph=True
    )
    assert same_bits(ours["values"], gradients[0].detach())
    assert same_bits(ours["bias"], gradients[1].detach())


@pytest.mark.parametrize("shape", [(4, 9), (4, 1, 9), (4, 3, 9), (4, 20, 9), (4, 2, 3, 9)])
def test_per_sample_gradients(shape):
    layer, dense, mask = twins()
    x = torch.randn(*shape).double()
    ours, theirs = (vmap(grad(loss_of(m)), (None, 0))(parameters(m), x) for m in (layer, dense))
    assert_close(ours, theirs, mask)


@pytest.mark.parametrize("in_dim", [0, 1, 2, -1])
def test_vmap_over_inputs(in_dim):
    layer, dense, _ = twins()
    x = torch.randn(4, 5, 9).double().movedim(0, in_dim)
    torch.testing.assert_close(vmap(layer, in_dim)(x), vmap(dense, in_dim)(x))
    torch.testing.assert_close(
        vmap(vmap(layer))(torch.ones(2, 3, 9).double()), dense(torch.ones(2, 3, 9).double())
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_vmap_over_inputs_is_one_product_in_every_mode(mode):
    layer, dense, _ = twins()
    x = torch.randn(4, 5, 9).double()
    with mode(), OperatorLog() as ran:
        y = vmap(layer)(x)
    assert ran.names == ["spmm"]
    torch.testing.assert_close(y, dense(x))


@pytest.mark.parametrize("lent", [("values",), ("bias",), ("values", "bias")])
@pytest.mark.parametrize("x_dim", [None, 0])
def test_vmap_over_parameters(lent, x_dim):
    layer, dense, mask = twins()
    x = torch.randn(3, 5, 9).double() if x_dim == 0 else torch.randn(5, 9).double()
    many = {name: torch.randn(3, *p.shape).double() for name, p in parameters(layer).items()}
    weight = torch.zeros(3, 6, 9).double()
    weight[:, mask] = many["values"]
    ours = {name: many[name] for name in lent}
    theirs = {{"values": "weight"}.get(n, n): {"values": weight}.get(n, many[n]) for n in lent}

    def losses(model: nn.Module, parameters: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        return vmap(grad(loss_of(model), argnums=(0, 1)), (0, x_dim))(parameters, x)

    (ours, dx), (theirs, expected) = losses(layer, ours), losses(dense, theirs)
    torch.testing.assert_close(dx, expected)
    for name in lent:
        if name == "values":
            torch.testing.assert_close(ours["values"], theirs["weight"][:, mask])
        else:
            torch.testing.assert_close(ours["bias"], theirs["bias"])


@pytest.mark.filterwarnings("error")
def test_an_ensemble_of_different_topologies():
    layers = [small(dtype=torch.float64) for _ in range(3)]
    for layer in layers[1:]:
        layer.reset_topology()
    stacked, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(4, 9).double()

    def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(layers[0], (parameters, buffers), (x,))

    expected = torch.stack([layer(x) for layer in layers])
    torch.testing.assert_close(vmap(call)(stacked, buffers), expected)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return call(parameters, buffers).square().sum()

    gradients = vmap(grad(loss))(stacked, buffers)["values"]
    expected.square().sum().backward()
    for ours, layer in zip(gradients, layers, strict=True):
        torch.testing.assert_close(ours, layer.values.grad)
    torch.testing.assert_close(layers[0](x), layers[0].to_dense()(x))  # nothing of it was kept


@each_batch
def test_vjp_and_jvp(batch):
    layer, dense, mask = twins()
    x, dx = torch.randn(2, batch, 9).double()
    dy = torch.randn(batch, 6).double()

    def call(model: nn.Module):
        return lambda parameters, x: functional_call(model, parameters, (x,))

    y, pull = vjp(call(layer), parameters(layer), x)
    expected, expected_pull = vjp(call(dense), parameters(dense), x)
    torch.testing.assert_close(y, expected)
    (ours, ours_x), (theirs, theirs_x) = pull(dy), expected_pull(dy)
    assert_close(ours, theirs, mask)
    torch.testing.assert_close(ours_x, theirs_x)

    tangent = {"weight": torch.randn(6, 9).double() * mask, "bias": torch.randn(6).double()}
    ours_tangent = {"values": tangent["weight"][mask], "bias": tangent["bias"]}
    ours = jvp(call(layer), (parameters(layer), x), (ours_tangent, dx))
    theirs = jvp(call(dense), (parameters(dense), x), (tangent, dx))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(jacobian):
    layer, dense, mask = twins()
    x = torch.randn(3, 9).double()
    torch.testing.assert_close(jacobian(layer)(x), jacobian(dense)(x))

    def call(model: nn.Module):
        return lambda parameters: functional_call(model, parameters, (x,))

    ours = jacobian(call(layer))(parameters(layer))
    assert_close(ours, jacobian(call(dense))(parameters(dense)), mask)


@pytest.mark.parametrize(
    "second", [hessian, lambda f: jacrev(jacrev(f)), lambda f: jacrev(jacfwd(f))]
)
def test_second_derivatives(second):
    layer, dense, mask = twins()
    x = torch.randn(3, 9).double()
    ours = second(lambda values: loss_of(layer)({"values": values}, x))(layer.values.detach())
    theirs = second(lambda weight: loss_of(dense)({"weight": weight}, x))(dense.weight.detach())
    torch.testing.assert_close(ours, theirs[mask][:, mask])


def test_forward_mode_without_functorch():
    layer, dense, _ = twins()
    x, dx = torch.randn(2, 5, 9).double()
    with forward_ad.dual_level():
        ours = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, dx)))
        theirs = forward_ad.unpack_dual(dense(forward_ad.make_dual(x, dx)))
    torch.testing.assert_close(ours.primal, theirs.primal)
    torch.testing.assert_close(ours.tangent, theirs.tangent)
    layer(x).sum().backward()


def test_gradients_of_gradients_in_forward_mode():
    layer, _, _ = twins()
    arguments = (torch.randn(3, 9).double().requires_grad_(),)
    options = {"check_forward_ad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(layer, arguments, check_batched_grad=True, **options)
    assert torch.autograd.gradgradcheck(layer, arguments, check_fwd_over_rev=True)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_activations(half):
    layer = small()
    x, dx = torch.randn(2, 4, 9).to(half)
    torch.testing.assert_close(vmap(layer)(x[:, None])[:, 0], layer(x))
    y, dy = jvp(layer, (x,), (dx,))
    assert y.dtype == dy.dtype == half
    torch.testing.assert_close(dy, layer(dx) - layer.bias.detach().to(half), atol=0.05, rtol=0.05)


def test_batched_gradients_of_an_eager_graph():
    layer, dense, mask = twins()
    x = torch.randn(5, 9).double().requires_grad_()
    dy = torch.randn(7, 5, 6).double()
    ours = torch.autograd.grad(layer(x), (x, *layer.parameters()), dy, is_grads_batched=True)
    theirs = torch.autograd.grad(dense(x), (x, *dense.parameters()), dy, is_grads_batched=True)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1][:, mask])
    torch.testing.assert_close(ours[2], theirs[2])


def test_a_transform_leaves_nothing_behind():
    layer, _, _ = twins()
    layer.indices[:] = small().indices  # to be derived again
    layer.indices.copy_(layer.indices.clone())
    x = torch.randn(20, 9).double()
    grad(lambda x: layer(x).sum())(x)
    vmap(grad(lambda x: layer(x).sum()))(x)
    assert not any(
        torch._C._functorch.is_functorch_wrapped_tensor(t) for t in layer.topology.parts[:2]
    )
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_a_topology_that_is_none_is_refused_under_vmap_too():
    layer = small(dtype=torch.float64)
    wrong = torch.stack([layer.indices, layer.indices.flip(1)])

    def call(indices: Tensor) -> Tensor:
        return functional_call(layer, {"indices": indices}, (torch.ones(2, 9).double(),))

    with pytest.raises(ValueError, match="`indices` must be sorted"):
        vmap(call)(wrong)


def test_vmap_over_no_samples_of_values_is_refused():
    layer = small(dtype=torch.float64)
    lent = torch.empty(0, layer.nnz).double()

    def call(values: Tensor) -> Tensor:
        return functional_call(layer, {"values": values}, (torch.ones(2, 9).double(),))

    with pytest.raises(ValueError, match="no samples"):
        vmap(call)(lent)
