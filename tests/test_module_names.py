"""A glob means one thing wherever it is asked for: what it names, and all that is inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

import torch_truly_sparse as tts

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


class Net(nn.Module):
    """Layers in containers, and one that has two names; `kind(in, out)` makes them."""

    def __init__(self, kind: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(kind(4, 5), nn.ReLU(), nn.ModuleDict({"out": kind(5, 4)}))
            for _ in range(2)
        )
        self.head = kind(4, 3)
        self.again = self.blocks[1][0]


def sparse_layer(in_features: int, out_features: int) -> nn.Module:
    return tts.TrulySparseLinear(in_features, out_features, density=0.5)


ALL = ["blocks.0.0", "blocks.0.2.out", "blocks.1.0", "blocks.1.2.out", "head"]


def sparsified(exclude: Iterable[str]) -> list[str]:
    model = tts.sparsify(Net(nn.Linear), density=0.5, exclude=exclude)
    return [n for n, m in model.named_modules() if isinstance(m, tts.TrulySparseLinear)]


def densified(exclude: Iterable[str]) -> list[str]:
    model = tts.densify(Net(sparse_layer), exclude=exclude)
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]


def evolved(exclude: Iterable[str]) -> list[str]:
    model = Net(sparse_layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = tts.SparseEvolution(model, optimizer, exclude=exclude).step()
    return [layer.name for layer in record.layers]


each_use = pytest.mark.parametrize("use", [sparsified, densified, evolved])


@each_use
@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ([], ALL),
        (["head"], ALL[:4]),
        (["blocks.0"], ALL[2:]),
        (["blocks"], ["head"]),
        (["blocks.?.0"], ["blocks.0.2.out", "blocks.1.2.out", "head"]),
        (["*.2"], ["blocks.0.0", "blocks.1.0", "head"]),
        (["*out"], ["blocks.0.0", "blocks.1.0", "head"]),
        (["again"], ["blocks.0.0", "blocks.0.2.out", "blocks.1.2.out", "head"]),
        (("blocks.0", "head"), ["blocks.1.0", "blocks.1.2.out"]),
    ],
    ids=str,
)
def test_a_glob_spares_what_it_names_and_all_that_is_inside(use, exclude, left) -> None:
    assert use(iter(exclude)) == left


@each_use
@pytest.mark.parametrize("glob", ["embed", "blocks.2", "block", "0", "blocks.*.1", ""])
def test_a_glob_that_spares_no_layer_is_refused(use, glob) -> None:
    with pytest.raises(ValueError, match=r"which matches none of the layers \(blocks.0.0, .*head"):
        use([glob])


@each_use
@pytest.mark.parametrize("glob", ["*", "[!x]*"])
def test_nothing_left_is_refused(use, glob) -> None:
    with pytest.raises(ValueError, match="`exclude`"):
        use([glob])


@pytest.mark.filterwarnings("ignore:layers with fewer connections")
def test_densities_by_glob_hold_for_all_that_is_inside() -> None:
    model = tts.sparsify(Net(nn.Linear), density=0.5, per_layer={"*.out": 0.1, "blocks.0": 0.2})
    nnz = [layer.nnz for layer in model.modules() if isinstance(layer, tts.TrulySparseLinear)]
    assert nnz == [4, 2, 10, 2, 6]


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def test_names_are_those_of_the_module_inside_a_compiled_one() -> None:
    model = compiled(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    sparse = tts.sparsify(model, density=0.5, exclude=["1"])
    inside = sparse.get_submodule("_orig_mod")
    assert [type(layer) for layer in inside] == [tts.TrulySparseLinear, nn.Linear]
    optimizer = torch.optim.SGD(sparse.parameters(), lr=0.1)
    assert [layer.name for layer in tts.SparseEvolution(sparse, optimizer).step().layers] == ["0"]
    back = tts.densify(compiled(inside), exclude=[]).get_submodule("_orig_mod")
    assert [type(layer) for layer in back] == [nn.Linear, nn.Linear]


@pytest.mark.parametrize("inside", [False, True])
def test_a_layer_compiled_by_itself_is_converted_in_a_copy_only(inside: bool) -> None:
    """What is compiled goes on to call the layer that it was given."""
    layer = compiled(nn.Linear(4, 5))
    model = nn.Sequential(layer, nn.ReLU()) if inside else layer
    with pytest.raises(ValueError, match=r"convert first, then compile"):
        tts.sparsify(model, density=0.5, inplace=True)
    assert type(layer.get_submodule("_orig_mod")) is nn.Linear
    x = torch.ones(2, 4)
    sparse = tts.sparsify(model, density=0.5)
    plain = sparse[0] if inside else sparse
    expected = plain.get_submodule("_orig_mod")(x)
    assert torch.equal(plain(x), expected)


def data_parallel(module: nn.Module) -> nn.Module:
    """A wrapper without the process group that it takes to make one in earnest."""
    wrapper = object.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = module
    return wrapper


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        data_parallel,
        lambda model: compiled(data_parallel(model)),
        lambda model: data_parallel(compiled(model)),
        lambda model: compiled(data_parallel(compiled(model))),
    ],
    ids=["compiled", "parallel", "compiled parallel", "parallel compiled", "all"],
)
def test_a_checkpoint_holds_the_model_inside_all_wrappers(wrap, tmp_path) -> None:
    model = nn.Sequential(tts.TrulySparseLinear(4, 5, nnz=6))
    wrapped = wrap(model)
    if wrap is not compiled:
        for part in wrapped.modules():
            if isinstance(part, nn.parallel.DistributedDataParallel):
                part.process_group = None  # one process, which gathers nothing
    path = tts.checkpoint.save(tmp_path / "run.pt", model=wrapped)
    assert set(tts.checkpoint.load(path)["model"]) == set(model.state_dict())


@pytest.mark.parametrize("convert", [lambda m: tts.sparsify(m, density=0.5), tts.densify])
@pytest.mark.parametrize(
    "wrap",
    [
        data_parallel,
        lambda m: nn.Sequential(data_parallel(m)),
        lambda m: compiled(data_parallel(m)),
    ],
)
def test_what_is_data_parallel_in_any_part_is_not_converted(convert, wrap) -> None:
    with pytest.raises(TypeError, match=r"or a part of it is: .* convert the model first"):
        convert(wrap(nn.Sequential(nn.Linear(4, 5), tts.TrulySparseLinear(5, 4, nnz=3))))
