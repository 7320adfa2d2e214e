"""All-ReLU: slopes of alternating sign on the negative side."""

import pytest
import torch

import torch_truly_sparse as tts


@pytest.mark.parametrize("layer_index", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 0.75])
def test_values_and_slopes(alpha: float, layer_index: int) -> None:
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    slope = alpha if layer_index % 2 else -alpha
    y = tts.nn.AllReLU(alpha, layer_index=layer_index)(x)
    expected = [entry if entry > 0 else slope * entry for entry in x.tolist()]
    assert y.tolist() == expected
    y.sum().backward()
    assert x.grad.tolist() == [slope, slope, slope, 1, 1]


def test_gradients_of_both_orders() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    activation = tts.nn.AllReLU(layer_index=2)
    assert torch.autograd.gradcheck(activation, x)
    assert torch.autograd.gradgradcheck(activation, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shape_and_dtype_stay(dtype: torch.dtype) -> None:
    y = tts.nn.AllReLU(layer_index=1)(torch.randn(2, 3, 4).to(dtype))
    assert (y.shape, y.dtype) == ((2, 3, 4), dtype)


def test_it_says_what_it_is() -> None:
    assert repr(tts.nn.AllReLU(0.75, layer_index=2)) == "AllReLU(alpha=0.75, layer_index=2)"
    assert not list(tts.nn.AllReLU(layer_index=1).parameters())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer_index": 1.0}, TypeError, "`layer_index` must be an int, got float"),
        ({"layer_index": True}, TypeError, "`layer_index` must be an int, got bool"),
        ({"alpha": float("nan"), "layer_index": 1}, ValueError, "`alpha` must be finite, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, message) -> None:
    with pytest.raises(error, match=message):
        tts.nn.AllReLU(**settings)
