"""Models packed for inference: the same outputs within bounds, few bytes, and back."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from compilers import needs_compiler
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse.nn import PackedLinear

DTYPES = [torch.float32, torch.bfloat16, torch.int8]
WIDE = 150_000


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        tts.TrulySparseLinear(70, 50, density=0.3),
        nn.LayerNorm(50),
        nn.ReLU(),
        tts.TrulySparseLinear(50, 20, density=0.2, bias=False),
        nn.Linear(20, 3),
    )


def bound(layer: tts.TrulySparseLinear, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What docs/inference.md says of the error of each output, and some rounding of sums."""
    weight, magnitudes = layer.weight.to_dense().double().abs(), x.double().abs()
    products = magnitudes @ weight.t()
    if dtype == torch.bfloat16:
        error = products * 2**-8
    elif dtype == torch.int8 and layer.in_features:
        scales = weight.amax(1) / 127
        error = (magnitudes @ (weight > 0).double().t()) * scales / 2
    else:
        error = torch.zeros_like(products)
    return error + (products + 1) * 1e-5


LAYERS = {
    "narrow": lambda: tts.TrulySparseLinear(70, 50, density=0.3),
    "without a bias": lambda: tts.TrulySparseLinear(70, 50, density=0.3, bias=False),
    "65536 inputs": lambda: tts.TrulySparseLinear(2**16, 20, nnz=300),
    "65537 inputs": lambda: tts.TrulySparseLinear(2**16 + 1, 20, nnz=300),
    "wide": lambda: tts.TrulySparseLinear(WIDE, 40, nnz=90),
    "wide, dense rows": lambda: tts.TrulySparseLinear(WIDE, 3, density=0.01),
    "empty": lambda: tts.TrulySparseLinear(9, 5, nnz=0),
    "no inputs": lambda: tts.TrulySparseLinear(0, 5, nnz=0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_outputs_are_within_the_bound(make, dtype) -> None:
    torch.manual_seed(0)
    layer = make()
    if layer.bias is not None:
        layer.bias.normal_()
    packed = PackedLinear.from_sparse(layer, dtype)
    assert packed.nnz == layer.nnz
    for batch in (1, 2, 3, 8, 40):
        x = torch.randn(batch, layer.in_features)
        error = (packed(x).double() - layer(x).double()).abs()
        assert (error <= bound(layer, x, dtype)).all()
    if dtype == torch.float32:
        assert torch.equal(packed(x), layer(x)) or layer.in_features > 2**16


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_the_same_bits_for_any_number_of_threads(dtype) -> None:
    torch.manual_seed(0)
    layer = PackedLinear.from_sparse(tts.TrulySparseLinear(900, 700, density=0.2), dtype)
    for batch in (1, 33):
        x = torch.randn(batch, 900)
        torch.set_num_threads(1)
        one = layer(x)
        torch.set_num_threads(2)
        assert torch.equal(layer(x), one)


@pytest.mark.parametrize(("dtype", "most"), [*zip(DTYPES, (6.1, 4.1, 3.1), strict=True)])
def test_bytes_a_weight(dtype, most) -> None:
    layer = tts.TrulySparseLinear(2000, 1000, density=0.1)
    packed = PackedLinear.from_sparse(layer, dtype)
    assert packed.nbytes / packed.nnz < most
    held = sum(tensor.untyped_storage().nbytes() for tensor in packed.state_dict().values())
    assert held == packed.nbytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_unpacking_gives_what_was_packed(make, dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(make())
    packed = tts.pack(model, dtype)
    back = tts.unpack(packed)
    assert torch.equal(back[0].indices, model[0].indices)
    if dtype == torch.float32:
        assert torch.equal(back[0].values, model[0].values)
    else:
        torch.testing.assert_close(back[0].values, model[0].values, atol=0.1, rtol=0.01)
    again = tts.pack(back, dtype)
    for name, buffer in packed.state_dict().items():
        assert torch.equal(again.state_dict()[name], buffer), name


def test_a_packed_model_is_a_copy_for_inference() -> None:
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    packed = tts.pack(model, torch.bfloat16)
    kinds = [type(module).__name__ for module in packed]
    assert kinds == ["PackedLinear", "LayerNorm", "ReLU", "PackedLinear", "Linear"]
    assert not packed.training
    assert model.training
    assert not any(parameter.requires_grad for parameter in packed.parameters())
    x = torch.randn(5, 70)
    assert not packed(x).requires_grad
    with torch.no_grad():
        packed[4].weight.zero_()
        packed[0].values.zero_()
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    back = tts.unpack(packed)
    assert back[0].values.requires_grad
    back(x).sum().backward()


def test_shared_and_excluded_layers() -> None:
    shared = tts.TrulySparseLinear(8, 8, density=0.5)
    model = nn.Sequential(shared, nn.ReLU(), shared, tts.TrulySparseLinear(8, 8, density=0.5))
    packed = tts.pack(model, exclude=["3"])
    assert packed[0] is packed[2]
    assert isinstance(packed[3], tts.TrulySparseLinear)
    assert tts.unpack(packed)[0] is not shared


def test_a_transformer_is_packed() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0), 2
    )
    model = tts.sparsify(encoder, density=0.5, exclude=["*.out_proj"]).eval()
    x = torch.randn(3, 7, 16)
    with torch.no_grad():
        torch.testing.assert_close(tts.pack(model)(x), model(x), atol=1e-5, rtol=1e-5)


def test_a_summary_tells_what_is_packed() -> None:
    model = network()
    packed = tts.summary(tts.pack(model, torch.int8), batch=2)
    plain = tts.summary(model)
    assert [row.kind for row in packed.rows] == ["packed int8", "packed int8", "dense"]
    assert [row.nnz for row in packed.rows] == [row.nnz for row in plain.rows]
    assert packed.bytes_dense == plain.bytes_dense
    assert packed.bytes < plain.bytes
    assert packed.other_bytes == plain.other_bytes
    assert packed.rows[0].seconds is None
    assert "packed int8" in str(packed)


# The rest of torch


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_states_go_through_files(dtype, tmp_path) -> None:
    packed, x = tts.pack(network(), dtype), torch.randn(4, 70)
    expected = packed(x)
    other = tts.pack(network(seed=1), dtype)  # as many connections, elsewhere
    buffer = io.BytesIO()
    torch.save(packed.state_dict(), buffer)
    buffer.seek(0)
    assert str(other.load_state_dict(torch.load(buffer, weights_only=True))) == (
        "<All keys matched successfully>"
    )
    assert torch.equal(other(x), expected)
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(packed.state_dict(), tmp_path / "packed.safetensors")
    fresh = nn.Sequential(
        PackedLinear(70, 50, dtype=dtype),
        nn.LayerNorm(50),
        nn.ReLU(),
        PackedLinear(50, 20, False, dtype=dtype),
        nn.Linear(20, 3),
    )
    assert fresh[0].nnz == 0
    fresh.load_state_dict(safetensors.load_file(tmp_path / "packed.safetensors"))
    assert torch.equal(fresh(x), expected)
    for copied in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(copied(x), expected)


@torch.no_grad()
def test_a_state_is_assigned_to_a_layer_on_the_meta_device() -> None:
    packed = PackedLinear.from_sparse(tts.TrulySparseLinear(70, 50, density=0.3), torch.int8)
    with torch.device("meta"):
        fresh = PackedLinear(70, 50, dtype=torch.int8)
    x = torch.randn(4, 70)
    with pytest.raises(ValueError, match="must be on one device"):
        fresh(x)
    state = packed.state_dict()
    fresh.load_state_dict(state, assign=True)
    assert fresh.values.data_ptr() == state["values"].data_ptr()
    assert torch.equal(fresh(x), packed(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize(
    "backend", ["eager", "aot_eager", pytest.param("inductor", marks=needs_compiler)]
)
@torch.no_grad()
def test_it_compiles(backend) -> None:
    packed, x = tts.pack(network(), torch.int8), torch.randn(4, 70)
    compiled = torch.compile(packed, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x), packed(x))


@pytest.mark.parametrize("strict", [False, True])
@torch.no_grad()
def test_it_is_exported_with_a_dynamic_batch(strict) -> None:
    packed, x = tts.pack(network(), torch.bfloat16), torch.randn(4, 70)
    batch = torch.export.Dim("batch")
    program = torch.export.export(packed, (x,), dynamic_shapes=({0: batch},), strict=strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    module = torch.export.load(buffer).module()
    for size in (1, 4, 9):
        y = torch.randn(size, 70)
        torch.testing.assert_close(module(y), packed(y))


@torch.no_grad()
def test_activations_of_half_precision_and_autocast() -> None:
    layer = tts.TrulySparseLinear(70, 50, density=0.3)
    packed, x = PackedLinear.from_sparse(layer, torch.int8), torch.randn(4, 70)
    for dtype in (torch.bfloat16, torch.float16):
        output = packed(x.to(dtype))
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), packed(x), atol=0.05, rtol=0.05)
        with torch.autocast("cpu", dtype=dtype):
            assert packed(x).dtype == dtype


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.double, nn.Module.bfloat16])
def test_conversions_leave_the_packed_weights_alone(convert) -> None:
    packed = PackedLinear.from_sparse(tts.TrulySparseLinear(70, 50, density=0.3), torch.int8)
    before = copy.deepcopy(packed.state_dict())
    convert(packed)
    for name, buffer in packed.state_dict().items():
        assert buffer.dtype == before[name].dtype
        assert torch.equal(buffer, before[name])


def test_leading_dimensions() -> None:
    packed = PackedLinear.from_sparse(tts.TrulySparseLinear(6, 4, density=0.5))
    x = torch.randn(2, 3, 6)
    assert packed(x).shape == (2, 3, 4)
    assert packed(x[0, 0]).shape == (4,)
    assert packed(torch.randn(0, 6)).shape == (0, 4)
    assert packed(torch.randn(2, 0, 6)).shape == (2, 0, 4)
    torch.testing.assert_close(packed(x)[1, 2], packed(x[1, 2]))
    assert PackedLinear(0, 4)(torch.ones(2, 3, 0)).shape == (2, 3, 4)
    assert PackedLinear(4, 0)(torch.ones(2, 3, 4)).shape == (2, 3, 0)


def test_numbers_that_are_none_stay_where_they_are() -> None:
    layer = tts.TrulySparseLinear(3, 3, density=1.0, bias=False)
    with torch.no_grad():
        layer.values.copy_(torch.arange(9.0))
        layer.values[0] = float("inf")
        layer.values[4] = float("nan")
        layer.values[6:] = 0
    for dtype in DTYPES:
        output = PackedLinear.from_sparse(layer, dtype)(torch.ones(1, 3))[0]
        assert output[0] == float("inf") or output[0].isnan()
        assert output[1].isnan()
        assert output[2] == 0


# What is refused


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`dtype` must be one of torch.float32, torch.bfloat16"):
        tts.pack(network(), torch.float16)
    with pytest.raises(ValueError, match=r"no .*TrulySparseLinear"):
        tts.pack(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(TypeError, match=r"'0': .*float32 weights, got torch.float64"):
        tts.pack(nn.Sequential(tts.TrulySparseLinear(4, 4, density=0.5, dtype=torch.float64)))
    with pytest.raises(ValueError, match="on the meta device"):
        tts.pack(nn.Sequential(tts.TrulySparseLinear(4, 4, density=0.5, device="meta")))
    with pytest.raises(TypeError, match="`layer` must be a TrulySparseLinear, got Linear"):
        PackedLinear.from_sparse(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"holds no nn.PackedLinear"):
        tts.unpack(network())
    with pytest.raises(TypeError, match=r"`model` must be an nn.Module"):
        tts.unpack(3)
    with pytest.raises(ValueError, match=r"below 2\*\*31"):
        PackedLinear(2**31, 3)


def test_inputs_that_do_not_fit_are_refused() -> None:
    packed = PackedLinear.from_sparse(tts.TrulySparseLinear(6, 4, density=0.5))
    with pytest.raises(ValueError, match="must have 6 features, got 5"):
        packed(torch.ones(2, 5))
    with pytest.raises(ValueError, match="got a scalar"):
        packed(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"convert the input with `input.float\(\)`"):
        packed(torch.ones(2, 6, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"must be a torch.Tensor, got list"):
        packed([1.0])
    x = torch.ones(2, 6, requires_grad=True)
    with pytest.raises(RuntimeError, match="has no gradients"):
        packed(x)
    with torch.no_grad():
        packed(x)


CHANGES = {
    "another shape": (lambda s: s["shape"].fill_(70), "matrix of shape"),
    "a code outside": (lambda s: s["codes"].__setitem__(3, 70), "outside"),
    "codes out of order": (lambda s: s["codes"].__setitem__(slice(0, 2), 5), "."),
    "pointers": (lambda s: s["row_pointers"].__setitem__(2, -1), "must rise"),
    "a value too few": (lambda s: s.update(values=s["values"][1:]), "of one size"),
    "another dtype": (lambda s: s.update(values=s["values"].float()), "dtype of the state"),
    "scales": (lambda s: s.update(scales=s["scales"][1:]), "must have shape"),
    "no tensor": (lambda s: s.update(codes=3), "must be 1-dimensional"),
    "a part is missing": (lambda s: s.pop("scales"), "Missing key"),
    "another part": (lambda s: s.update(seal=torch.ones(3)), "Unexpected key"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_state_that_does_not_fit_changes_nothing(change, message) -> None:
    torch.manual_seed(0)
    saved = PackedLinear.from_sparse(tts.TrulySparseLinear(70, 50, density=0.3), torch.int8)
    packed = PackedLinear.from_sparse(tts.TrulySparseLinear(70, 50, density=0.3), torch.int8)
    before = copy.deepcopy(packed.state_dict())
    state = copy.deepcopy(saved.state_dict())
    change(state)
    with pytest.raises(RuntimeError, match=message):
        packed.load_state_dict(state)
    after = packed.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_codes_that_were_changed_are_noticed() -> None:
    packed = PackedLinear.from_sparse(tts.TrulySparseLinear(70, 50, density=0.3))
    packed.codes[3] = 70
    with pytest.raises(ValueError, match=r"`codes\[3\]` leads to column 70, outside"):
        packed(torch.ones(1, 70))
    with pytest.raises(ValueError, match="outside"):
        packed.to_sparse()


def test_it_says_what_it_holds() -> None:
    packed = PackedLinear.from_sparse(tts.TrulySparseLinear(70, 50, nnz=30), torch.int8)
    assert repr(packed) == (
        "PackedLinear(in_features=70, out_features=50, nnz=30, bias=True, dtype=int8)"
    )
