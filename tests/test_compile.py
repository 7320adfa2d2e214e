"""Compiled and exported models give what eager ones give, whatever becomes of their topology."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from compilers import needs_compiler
from small_layers import seeded
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear
from torch_truly_sparse.functional import sparse_linear

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's compiler has its own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counter:
    """A backend that runs what it is given and counts how often it is asked."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        self.graphs += 1
        return graph.forward


def network(seed: int = 0, **options) -> nn.Sequential:
    g = seeded(seed)
    return nn.Sequential(
        TrulySparseLinear(20, 30, density=0.2, generator=g, **options),
        nn.ReLU(),
        TrulySparseLinear(30, 10, density=0.3, generator=g, **options),
    )


def results(model: nn.Module, x: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *parameters])]


def assert_equal_eager(compiled: Callable[..., Tensor], model: nn.Module, batch: int = 24) -> None:
    x, parameters = torch.randn(batch, 20), list(model.parameters())
    torch.testing.assert_close(results(compiled, x, parameters), results(model, x, parameters))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


@needs_compiler
def test_inductor():
    model, x = network(), torch.randn(24, 20)
    parameters = list(model.parameters())
    expected = results(model, x, parameters)  # makes the transposed orders: one graph will do
    # Vector code would be the better one: but to find the instruction sets of this machine, the
    # compiler builds ten programs first. Nor is a pool of processes needed for two kernels.
    plain = {"cpp.vec_isa_ok": False, "compile_threads": 1}
    compiled = torch.compile(model, fullgraph=True, options=plain)
    torch.testing.assert_close(results(compiled, x, parameters), expected)
    for layer in model[0], model[2]:
        layer.reset_topology()
    expected = results(model, x, parameters)
    torch.testing.assert_close(results(compiled, x, parameters), expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_forward_and_backward(backend):
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for _ in range(2):
        assert_equal_eager(compiled, model)
    for layer in model[0], model[2]:
        layer.reset_topology()
    assert_equal_eager(compiled, model)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph_serves_every_batch(backend):
    model = network()
    counter = Counter()
    compiled = torch.compile(
        model, fullgraph=True, backend=counter if backend == "eager" else backend, dynamic=True
    )
    x = torch.randn(24, 20).requires_grad_()
    torch._dynamo.mark_dynamic(x, 0)
    compiled(x).sum().backward()  # makes the transposed order
    compiled(x)
    graphs = counter.graphs
    for batch in 2, 5, 16, 17, 40:
        x = torch.randn(batch, 20).requires_grad_()
        torch.testing.assert_close(compiled(x), model(x))
    assert counter.graphs == graphs


def test_leading_dimensions_and_the_stateless_form():
    layer = network()[0]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for leading in (), (2,), (2, 3), (0,):
        x = torch.randn(*leading, 20)
        torch.testing.assert_close(compiled(x), layer(x))
    stateless = torch.compile(sparse_linear, fullgraph=True, backend="aot_eager")
    x, values = torch.randn(4, 20), layer.values.detach().clone().requires_grad_()
    y = stateless(x, layer.topology, values, layer.bias)
    torch.testing.assert_close(y, layer(x))
    (gradient,) = torch.autograd.grad(y.sum(), values)
    torch.testing.assert_close(gradient, torch.autograd.grad(layer(x).sum(), layer.values)[0])


CHANGES = {
    "replace": lambda m: m[0].replace_topology(network(5)[0].topology),
    "reset": lambda m: m[2].reset_topology(generator=seeded(7)),
    "assign": lambda m: setattr(m[0], "indices", network(5)[0].indices),
    "load": lambda m: m.load_state_dict(network(5).state_dict()),
    "load assign": lambda m: m.load_state_dict(network(5).state_dict(), assign=True),
    "values": lambda m: m[0].reset_parameters("he_uniform"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_no_change_of_topology_is_missed(change, backend):
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert_equal_eager(compiled, model)
    for _ in range(2):
        change(model)
        assert_equal_eager(compiled, model)


@pytest.mark.parametrize("change", ["replace", "reset", "assign", "load"])
def test_topologies_change_without_compiling_again(change):
    model, counter = network(), Counter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)

    def train() -> None:
        for _ in range(3):
            compiled(torch.ones(24, 20).requires_grad_()).sum().backward()

    train()
    graphs = counter.graphs
    for _ in range(3):
        CHANGES[change](model)
        train()
    assert counter.graphs == graphs <= 2  # without the transposed order, and with it


def test_layers_that_change_size():
    model, counter = network(), Counter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    assert_equal_eager(compiled, model)
    for nnz in 100, 140, 90:
        grown = TrulySparseLinear(20, 30, nnz=nnz)
        model[0].load_state_dict(grown.state_dict())
        assert_equal_eager(compiled, model)


@pytest.mark.parametrize("convert", [lambda m: m.double(), lambda m: m.to("cpu", torch.float64)])
def test_a_converted_model(convert):
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(torch.ones(24, 20))
    convert(model)
    x = torch.randn(24, 20).double()
    torch.testing.assert_close(compiled(x), model(x))
    model.load_state_dict(network(3).state_dict())
    torch.testing.assert_close(compiled(x), model(x))


def test_what_compiled_code_derived_is_checked_by_eager_code():
    model = network()
    model[0]._kept.forget(model[0].indices, model[0].seal)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    compiled(torch.ones(24, 20))
    model[0].indices.copy_(network(5)[0].indices)
    model[0].seal.copy_(network(5)[0].seal)
    dense = model[0].to_dense()
    x = torch.randn(24, 20)
    torch.testing.assert_close(model[0](x), dense(x))


def test_training_with_evolution_equals_the_eager_one():
    def train(compiled: bool) -> tuple[list[float], nn.Module]:
        torch.manual_seed(1)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        tts.SparseEvolution(model, optimizer, fraction=0.3, every=3, generator=seeded(2))
        call = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = (call(torch.randn(24, 20)) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, model

    (losses, model), (expected, eager) = train(True), train(False)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(model.state_dict(), eager.state_dict())
    assert not torch.equal(model[0].indices, network()[0].indices)


def test_second_derivatives_are_refused_by_torch():
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 20).requires_grad_()
    (gradient,) = torch.autograd.grad(compiled(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        gradient.sum().backward()


def test_transforms_in_compiled_code_are_refused_by_torch():
    layer = network()[0]
    per_sample = torch.func.vmap(torch.func.grad(lambda x: layer(x).sum()))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="custom jvp"):
        torch.compile(per_sample, fullgraph=True, backend="eager")(torch.ones(4, 20))


def test_autocast_compiled():
    model = network()

    def call(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    x = torch.randn(24, 20)
    y = compiled(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, call(x))


# torch.export


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_program(strict, dynamic):
    model, x = network(), torch.randn(24, 20)
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(model, (x,), strict=strict, dynamic_shapes=shapes)
    assert len(program.constants) == 2  # the row pointers of both layers
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    for run in program.module(), torch.export.load(buffer).module():
        for batch in [24, 2, 16, 17, 100] if dynamic else [24]:
            x = torch.randn(batch, 20)
            torch.testing.assert_close(run(x), model(x))


@pytest.mark.parametrize("strict", [False, True])
def test_all_leading_dimensions_of_an_exported_program_may_be_dynamic(strict):
    model = network()
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time")},)
    example = torch.randn(5, 3, 20)
    run = torch.export.export(model, (example,), strict=strict, dynamic_shapes=shapes).module()
    for sizes in [(5, 3), (2, 9), (17, 2)]:
        x = torch.randn(*sizes, 20)
        torch.testing.assert_close(run(x), model(x))


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_follows_its_own_topology(strict):
    model, other, x = network(), network(9), torch.randn(24, 20)
    exported = torch.export.export(model, (x,), strict=strict).module()
    exported.load_state_dict(other.state_dict(), strict=not strict)
    torch.testing.assert_close(exported(x), other(x))
    if not strict:  # where it has a place for the seals
        torch.testing.assert_close(model(x), other(x))  # it shares its tensors with the model


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_does_not_derive_what_it_knows(strict):
    """Only the ends of rows are looked at: a column out of order is not noticed, a row is."""
    layer = tts.TrulySparseLinear(20, 10, density=0.5)
    x = torch.randn(3, 20)
    exported = torch.export.export(layer, (x,), strict=strict).module()
    expected = exported(x)
    indices = dict(exported.named_buffers())["indices"]
    first, second = indices[1, 0].item(), indices[1, 1].item()
    assert indices[0, 0] == indices[0, 1]
    values = dict(exported.named_parameters())["values"]
    with torch.no_grad():  # the same matrix, its first two weights in another order
        indices[1, :2] = torch.tensor([second, first])
        values[:2] = values[:2].flip(0)
    torch.testing.assert_close(exported(x), expected)
    with torch.no_grad():
        indices[0, 0] = 1
    with pytest.raises((ValueError, RuntimeError), match="`indices` must be sorted"):
        exported(x)


def test_a_program_of_a_layer_without_known_row_pointers():
    layer = tts.TrulySparseLinear(20, 10, density=0.5)
    layer = layer.to(torch.float64)  # the next use derives them
    x = torch.randn(3, 20, dtype=torch.float64)
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), layer(x))


def test_an_exported_program_computes_and_does_not_train():
    model, x = network(), torch.randn(24, 20)
    exported = torch.export.export(model, (x,)).module()
    with pytest.warns(UserWarning, match="an autograd kernel was not registered"):
        exported(x).sum().backward()
