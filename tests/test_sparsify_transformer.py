"""torch's transformers: in evaluation they hand weights to one fused kernel, past the layers."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from small_layers import seeded
from torch import Tensor, nn

import torch_truly_sparse as tts

OUT_PROJ = ["*.out_proj"]
PADDING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 1, 1, 1, 1]]).bool()
INPUT = torch.randn(3, 5, 16, generator=seeded())

# torch says of its own nested tensors that they may change.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


def encoder(activation: str = "relu", **options) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, activation, batch_first=True)
    return nn.TransformerEncoder(layer, 2, **options).eval()


def sparse_encoder(**options) -> nn.TransformerEncoder:
    return tts.sparsify(encoder(**options), density=0.3, exclude=OUT_PROJ, generator=seeded())


def by_hand(model: nn.TransformerEncoder, x: Tensor, padding: Tensor | None) -> Tensor:
    """What the layers compute when each is called, by torch's ordinary path for training."""
    model = copy.deepcopy(model).train()  # dropout is 0
    return model(x, src_key_padding_mask=padding)


def run(model: nn.Module, padding: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model(INPUT, src_key_padding_mask=padding)


def spied(model: nn.Module, monkeypatch: pytest.MonkeyPatch, **call) -> bool:
    """Whether the fused kernel ran."""
    ran = []
    fused = torch._transformer_encoder_layer_fwd

    def note(*arguments):
        ran.append(True)
        return fused(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "_transformer_encoder_layer_fwd", note)
        run(model, **call)
    return bool(ran)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("padding", [None, PADDING], ids=["whole", "padded"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_an_encoder_calls_its_sparse_layers_in_evaluation(activation, padding, nested):
    model = sparse_encoder(activation=activation, enable_nested_tensor=nested)
    assert type(model.layers[1].linear2) is tts.TrulySparseLinear
    expected, actual = by_hand(model, INPUT, padding), run(model, padding)
    real = slice(None) if padding is None else ~padding
    torch.testing.assert_close(actual[real], expected[real])
    with torch.inference_mode():
        inferred = model(INPUT, src_key_padding_mask=padding)
    torch.testing.assert_close(inferred[real].clone(), expected[real])


@pytest.mark.parametrize("padding", [None, PADDING], ids=["whole", "padded"])
def test_the_fused_kernel_runs_exactly_where_all_layers_are_dense(padding, monkeypatch):
    dense = encoder()
    assert spied(dense, monkeypatch, padding=padding)
    sparse = tts.sparsify(dense, density=0.3, exclude=OUT_PROJ)
    assert not spied(sparse, monkeypatch, padding=padding)
    assert spied(dense, monkeypatch, padding=padding)  # the original is as it was
    back = tts.densify(sparse)
    assert back.use_nested_tensor == dense.use_nested_tensor
    assert spied(back, monkeypatch, padding=padding)
    real = slice(None) if padding is None else ~padding
    torch.testing.assert_close(run(back, padding)[real], run(sparse, padding)[real])


def test_one_sparse_layer_is_enough_to_leave_the_fused_path(monkeypatch):
    dense = encoder()
    sparse = tts.sparsify(dense, density=0.3, exclude=[*OUT_PROJ, "layers.0", "*.linear1"])
    assert type(sparse.layers[1].linear2) is tts.TrulySparseLinear
    expected = by_hand(sparse, INPUT, PADDING)
    torch.testing.assert_close(run(sparse, PADDING)[~PADDING], expected[~PADDING])
    assert spied(sparse, monkeypatch)  # the first layer is dense, and runs fused


def test_a_fast_path_that_its_owner_has_closed_stays_closed():
    dense = encoder()
    dense.use_nested_tensor = False
    dense.layers[0].activation_relu_or_gelu = 0
    back = tts.densify(tts.sparsify(dense, density=0.3, exclude=OUT_PROJ))
    assert not back.use_nested_tensor
    assert [layer.activation_relu_or_gelu for layer in back.layers] == [0, 1]


def copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def pickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("travel", [copied, pickled])
def test_copies_and_pickles_know_it_too(travel):
    model = sparse_encoder()
    torch.testing.assert_close(run(travel(model), PADDING), run(model, PADDING))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True, but")
def test_an_encoder_made_of_a_sparse_layer_later():
    layer = sparse_encoder().layers[0]
    model = nn.TransformerEncoder(layer, 2).eval()
    expected = by_hand(model, INPUT, PADDING)
    torch.testing.assert_close(run(model, PADDING)[~PADDING], expected[~PADDING])


def test_in_place_and_the_layer_alone():
    layer = encoder().layers[0]
    tts.sparsify(layer, density=0.3, exclude=["*out_proj"], inplace=True)
    with torch.no_grad():
        actual = layer(INPUT)
    torch.testing.assert_close(actual, layer.train()(INPUT))


def test_attention_is_refused_by_name_and_stays_dense_where_excluded():
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    with pytest.raises(ValueError, match=r"self_attn.out_proj: it is the output projection of an"):
        tts.sparsify(model, density=0.3)
    sparse = tts.sparsify(model, density=0.3, exclude=["self_attn"])
    assert torch.equal(sparse.self_attn.in_proj_weight, model.self_attn.in_proj_weight)
    assert torch.equal(sparse.self_attn.out_proj.weight, model.self_attn.out_proj.weight)


def test_a_whole_transformer_with_its_decoder():
    torch.manual_seed(0)
    model = nn.Transformer(16, 4, 1, 1, 32, 0.0, batch_first=True)
    sparse = tts.sparsify(model, density=0.3, exclude=OUT_PROJ, generator=seeded()).eval()
    with torch.no_grad():
        actual = sparse(INPUT, INPUT, src_key_padding_mask=PADDING)
    expected = sparse.train()(INPUT, INPUT, src_key_padding_mask=PADDING)
    torch.testing.assert_close(actual, expected)
