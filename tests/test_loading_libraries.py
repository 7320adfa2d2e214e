"""Models that other libraries make on `meta` and fill part by part are right, or refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from operators import OPERATORS
from oracles import all_same_bits
from small_layers import seeded
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear

WIDTH = 64


def network(width: int = WIDTH, seed: int | None = 0, nnz: int = 300) -> nn.Sequential:
    g = None if seed is None else seeded(seed)
    return nn.Sequential(
        TrulySparseLinear(width, 32, nnz=nnz, generator=g), nn.ReLU(), nn.Linear(32, 4)
    )


# Parts of one layer on several devices


@pytest.mark.parametrize("part", ["indices", "values", "bias", "seal"])
def test_a_layer_with_a_part_on_meta_is_refused(part):
    layer = network()[0]
    held = layer._parameters if part in layer._parameters else layer._buffers
    empty = held[part].to("meta")
    held[part] = nn.Parameter(empty) if part in layer._parameters else empty
    x = torch.ones(2, WIDTH)
    if part == "seal":  # says nothing then, and the product does not read it
        layer(x)
        return
    with pytest.raises(ValueError, match="meta"):
        layer(x)


def tensors_of(name: str) -> list[int]:
    arguments = OPERATORS[name].few()[0].arguments
    return [place for place, each in enumerate(arguments) if isinstance(each, torch.Tensor)]


@pytest.mark.parametrize("name", [name for name in OPERATORS if len(tensors_of(name)) > 1])
def test_no_operator_takes_operands_of_several_devices(name):
    operator = OPERATORS[name]
    arguments = operator.few()[0].arguments
    for place in tensors_of(name):
        mixed = list(arguments)
        mixed[place] = mixed[place].to("meta")
        with pytest.raises(ValueError, match="must be on one device"):
            operator.compute(*mixed)


@pytest.mark.parametrize("order", [("indices", "values"), ("values", "indices")])
@pytest.mark.parametrize("seal", ["first", "last", "never"])
def test_parts_may_be_assigned_in_any_order(order, seal):
    given = network()[0]
    with torch.device("meta"):
        layer = network(seed=None)[0]
    names = [*order]
    if seal != "never":
        names.insert(0 if seal == "first" else 2, "seal")
    for name in (*names, "bias"):
        setattr(layer, name, getattr(given, name))
    assert all_same_bits(given.state_dict(), layer.state_dict())
    x = torch.ones(2, WIDTH)
    assert torch.equal(layer(x), given(x))


@pytest.mark.parametrize("order", [("indices", "seal"), ("seal", "indices")])
def test_parts_of_a_narrower_matrix_are_refused(order):
    given = network(WIDTH - 10)[0]
    with torch.device("meta"):
        layer = network(seed=None)[0]

    def assemble() -> None:
        layer.values = nn.Parameter(given.values.detach())
        layer.bias = nn.Parameter(given.bias.detach())
        for name in order:
            setattr(layer, name, getattr(given, name))
        layer(torch.ones(2, WIDTH))

    with pytest.raises(ValueError, match=r"matrix of shape \(32, 54\)"):
        assemble()


def test_weights_are_float32_where_the_default_dtype_is_a_half():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        layer = TrulySparseLinear(20, 30, nnz=50)
        y = layer(torch.ones(2, 20))
    finally:
        torch.set_default_dtype(before)
    assert layer.values.dtype == layer.bias.dtype == torch.float32
    assert y.dtype == torch.bfloat16


# accelerate


@pytest.fixture
def accelerate():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("accelerate")


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_accelerate_fills_an_empty_model(accelerate, tmp_path, buffers, form):
    given = network()
    path = saved(given, tmp_path, form)
    with accelerate.init_empty_weights(include_buffers=buffers):
        empty = network(seed=None)
    assert all(entry.is_meta for entry in empty[0].state_dict().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled = accelerate.load_checkpoint_and_dispatch(empty, path, device_map={"": "cpu"})
    assert all_same_bits(given.state_dict(), filled.state_dict())
    x = torch.ones(2, WIDTH)
    assert torch.equal(filled(x), given(x))


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_accelerate_cannot_fill_a_model_of_another_width(accelerate, tmp_path, form):
    path = saved(network(WIDTH - 10), tmp_path, form)
    with accelerate.init_empty_weights():
        empty = network(seed=None)

    def use() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            filled = accelerate.load_checkpoint_and_dispatch(empty, path, device_map={"": "cpu"})
        filled(torch.ones(2, WIDTH))

    with pytest.raises(ValueError, match=r"matrix of shape \(32, 54\)"):
        use()


def saved(model, folder, form):
    if form == "safetensors":
        torch_files = pytest.importorskip("safetensors.torch")
        torch_files.save_file(model.state_dict(), folder / "model.safetensors")
        return str(folder / "model.safetensors")
    torch.save(model.state_dict(), folder / "model.bin")
    return str(folder / "model.bin")


# transformers


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("transformers")
        module.logging.set_verbosity_error()
        module.logging.disable_progress_bar()
        return module


def models(transformers):
    """Classes of a library's kind: one with a sparse layer, one with a dense one."""

    class Config(transformers.PretrainedConfig):
        model_type = "toy"

        def __init__(self, width=WIDTH, **rest):
            self.width = width
            super().__init__(**rest)

    class Sparse(transformers.PreTrainedModel):
        config_class = Config

        def __init__(self, config):
            super().__init__(config)
            self.first = TrulySparseLinear(config.width, 32, nnz=300)
            self.last = nn.Linear(32, 4)
            self.post_init()

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    class Dense(Sparse):
        def __init__(self, config):
            super().__init__(config)
            self.first = nn.Linear(config.width, 32)
            self.post_init()

    return Config, Sparse, Dense


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_transformers_load_a_model_with_a_sparse_layer(transformers, tmp_path, dtype):
    config, sparse, _ = models(transformers)
    model = sparse(config())
    model.save_pretrained(tmp_path)
    again, info = sparse.from_pretrained(tmp_path, output_loading_info=True, dtype=dtype)
    assert not any(info.values())
    assert torch.equal(again.first.indices, model.first.indices)
    assert again.first.values.dtype == torch.float32
    x = torch.ones(2, WIDTH, dtype=dtype)
    tolerance = 0 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(again(x).float(), model(x.float()), atol=tolerance, rtol=tolerance)


def test_transformers_cannot_load_a_model_of_another_width(transformers, tmp_path):
    config, sparse, _ = models(transformers)
    sparse(config(width=WIDTH - 10)).save_pretrained(tmp_path)

    def use() -> None:
        sparse.from_pretrained(tmp_path, config=config())(torch.ones(2, WIDTH))

    with pytest.raises(ValueError, match=r"matrix of shape \(32, 54\)"):
        use()


def test_what_a_converted_model_saves_is_refused_by_its_dense_class(transformers, tmp_path):
    config, _, dense = models(transformers)
    model = tts.sparsify(dense(config()), density=0.1, exclude=["last"])
    model.save_pretrained(tmp_path)
    with pytest.raises((RuntimeError, ValueError), match=r"first\.weight|mismatch"):
        dense.from_pretrained(tmp_path)
    files = pytest.importorskip("safetensors.torch")
    again = tts.sparsify(dense(config()), density=0.1, exclude=["last"])
    again.load_state_dict(files.load_file(tmp_path / "model.safetensors"))
    x = torch.ones(2, WIDTH)
    assert torch.equal(again(x), model(x))
    tts.densify(model).save_pretrained(tmp_path)
    torch.testing.assert_close(dense.from_pretrained(tmp_path)(x), model(x))
