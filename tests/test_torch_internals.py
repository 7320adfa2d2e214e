"""What each private function of torch stands for here: a torch that changes it fails here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from several_ranks import needs_gloo, on_ranks
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from torch_truly_sparse import _torch_internals as internals

PACKAGE = Path(internals.__file__).parent


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_any_autocast_enabled_says_whether_a_region_is_open(dtype):
    assert internals.any_autocast_enabled() is False
    with torch.autocast("cpu", dtype=dtype):
        assert internals.any_autocast_enabled() is True
        with torch.autocast("cpu", enabled=False):
            assert internals.any_autocast_enabled() is False
    assert internals.any_autocast_enabled() is False


def test_current_backward_tells_backward_passes_apart():
    seen = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            seen.append(internals.current_backward())
            return g

    x = torch.ones(2, requires_grad=True)
    assert internals.current_backward() == -1
    for _ in range(2):
        (Probe.apply(x) + Probe.apply(x)).sum().backward()
    first, second = seen[:2], seen[2:]
    assert len(set(first)) == len(set(second)) == 1
    assert -1 not in seen
    assert first[0] != second[0]


@pytest.mark.parametrize(
    ("run", "arrives"),
    [
        (lambda y, x, leaf: y.backward(), True),
        (lambda y, x, leaf: y.backward(inputs=[leaf]), True),
        (lambda y, x, leaf: y.backward(inputs=[x]), False),
        (lambda y, x, leaf: torch.autograd.grad(y, x), False),
        (lambda y, x, leaf: torch.autograd.grad(y, leaf), False),
        (lambda y, x, leaf: torch.autograd.grad(y, [x, leaf]), False),
    ],
)
def test_a_backward_pass_says_whether_a_gradient_arrives_in_a_leaf(run, arrives):
    seen = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, leaf):
            ctx.save_for_backward(leaf)
            return (x * leaf).sum()

        @staticmethod
        def backward(ctx, g):
            (saved,) = ctx.saved_tensors
            seen.append((saved is leaf, internals.gradient_arrives(saved)))
            return g.expand(3), g.expand(3)

    x, leaf = torch.ones(3, requires_grad=True), nn.Parameter(torch.ones(3))
    run(Probe.apply(x, leaf), x, leaf)
    assert seen == [(True, arrives)]  # a saved leaf is given back as the same object
    assert (leaf.grad is not None) == arrives


def test_hooks_on_gradients_are_seen():
    leaf = nn.Parameter(torch.ones(3))
    assert not internals.has_gradient_hooks(leaf)
    hook = leaf.register_hook(lambda g: g)
    assert internals.has_gradient_hooks(leaf)
    hook.remove()
    assert not internals.has_gradient_hooks(leaf)
    hook = leaf.register_post_accumulate_grad_hook(lambda p: None)
    assert internals.has_gradient_hooks(leaf)
    hook.remove()
    assert not internals.has_gradient_hooks(leaf)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: torch.func.vmap(f)(x),
        lambda f, x: torch.func.grad(lambda y: f(y).sum())(x),
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
        lambda f, x: torch.func.vjp(f, x),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_are_seen_while_they_run(transform):
    seen = []

    def function(x):
        seen.append(internals.transforms_active())
        return x * 2

    assert not internals.transforms_active()
    transform(function, torch.ones(3, 2))
    assert seen == [True]
    assert not internals.transforms_active()


def test_levels_of_forward_mode_are_seen():
    assert not internals.transforms_active()
    with forward_ad.dual_level():
        assert internals.transforms_active()
    assert not internals.transforms_active()


def test_ordinary_gradients_are_no_transform():
    seen = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: seen.append(internals.transforms_active()))
    y.sum().backward()
    assert seen == [False]


def test_versions_count_changes_in_place():
    x = torch.zeros(3)
    before = internals.version_of(x)
    x.add_(1)
    assert internals.version_of(x) > before
    assert internals.version_of(x[1:]) == internals.version_of(x)  # a view counts with its base
    with torch.inference_mode():
        assert internals.version_of(torch.zeros(3).add_(1)) == 0


def test_broken_graphs_go_on_in_eager_code():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    def function(x):
        x = x + 1
        internals.break_graph("because")
        return x * 2

    compiled = torch.compile(function, backend=backend)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 4.0))
    assert len(graphs) == 2
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="because"):
        torch.compile(function, backend=backend, fullgraph=True)(torch.ones(2))


def test_what_is_not_compiled_is_called_between_graphs_with_all_that_it_calls():
    graphs, seen = [], []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    def inner():
        seen.append(torch.compiler.is_compiling())

    @internals.not_compiled
    def outer():
        inner()

    def function(x):
        x = x + 1
        outer()
        return x * 2

    assert torch.equal(torch.compile(function, backend=backend)(torch.ones(2)), torch.full((2,), 4))
    assert len(graphs) == 2
    assert seen == [False]


def test_tensors_without_content_are_told():
    assert internals.has_content(torch.ones(2))
    assert not internals.has_content(torch.ones(2, device="meta"))
    with FakeTensorMode():
        assert not internals.has_content(torch.ones(2))


@needs_gloo
def test_data_parallel_is_told_what_to_ignore_and_remembers_it(tmp_path):
    # In a process of its own: a process group starts threads, which the tests' process keeps.
    (ignored,) = on_ranks(ignored_by_data_parallel, 1, tmp_path)
    assert {"running_mean", "running_var"} <= set(ignored)


def ignored_by_data_parallel(rank, size, folder):
    model = nn.BatchNorm1d(3)
    internals.let_data_parallel_ignore(model, ["running_mean"])
    internals.let_data_parallel_ignore(model, ["running_var"])
    return sorted(nn.parallel.DistributedDataParallel(model).parameters_to_ignore)


def test_no_other_module_uses_private_functions_of_torch():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "_torch_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                owner = ast.unparse(node.value)
                private = owner in ("torch", "forward_ad") or owner.startswith(("torch.", "dist."))
                known = node.attr in {"_ConvNd", "__version__", "__future__"}
                assert not private or known, f"{path.name}: {ast.unparse(node)}"
                assert node.attr not in {"_version", "_current_level"} or owner in {"self", "other"}


class Described(torch.Tensor):
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(func)


def test_as_described_has_a_description_and_no_entries():
    like = torch.ones(5, dtype=torch.float64, requires_grad=True)
    made = internals.as_described(Described, (10**9, 10**9), like, torch.sparse_coo)
    assert type(made) is Described
    assert made.shape == (10**9, 10**9)
    assert (made.dtype, made.device, made.layout) == (torch.float64, like.device, torch.sparse_coo)
    assert made.requires_grad
    with pytest.raises(NotImplementedError):
        made.to_dense()


def test_without_torch_function_hides_subclasses():
    class Watching(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            raise AssertionError

    watching = torch.ones(2).as_subclass(Watching)
    with internals.without_torch_function():
        assert watching.shape == (2,)
    with pytest.raises(AssertionError):
        _ = watching.shape
