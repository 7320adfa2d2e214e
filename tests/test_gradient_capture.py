"""What growth by gradient captures: exactly the passes that reach `grad`, and only while armed."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from evolving_network import both_twins, network, seeded, sgd
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import torch_truly_sparse as tts
from torch_truly_sparse.evolution.gradient.capture import GradientCapture, GradientCaptures, Pass
from torch_truly_sparse.rules import LayerView

DTYPE = torch.float64


def layer_of(layer_type: type[tts.nn.SparseLayer] = tts.TrulySparseLinear) -> tts.nn.SparseLayer:
    return layer_type(6, 5, nnz=12, dtype=DTYPE, generator=seeded())


def inputs(count: int = 3, *leading: int) -> list[Tensor]:
    shape = leading or (4,)
    return [torch.randn(*shape, 6, dtype=DTYPE, generator=seeded(i)) for i in range(count)]


def whole_gradient(layer: tts.nn.SparseLayer, capture: GradientCapture) -> Tensor:
    """The captured gradient at every position, from its blocks."""
    gradient = LayerView("layer", layer, captured=capture.captured).captured_gradient()
    return torch.cat([block.clone() for _, block in gradient.blocks()])


def check(layer: tts.nn.SparseLayer, capture: GradientCapture) -> None:
    """At the connections the captured gradient is what autograd has put into `grad`."""
    rows, columns = layer.indices.long()
    expected = layer.gather(layer.weight_parameter.grad)
    torch.testing.assert_close(whole_gradient(layer, capture)[rows, columns], expected)
    assert expected.any()


def once(layer: tts.nn.SparseLayer) -> None:
    layer(inputs()[0]).square().sum().backward()


def by_keyword(layer: tts.nn.SparseLayer) -> None:
    layer(input=inputs()[0]).square().sum().backward()


def accumulated(layer: tts.nn.SparseLayer) -> None:
    for x in inputs():
        layer(x).square().sum().backward()


def twice_in_one_pass(layer: tts.nn.SparseLayer) -> None:
    a, b, _ = inputs()
    (layer(a).square().sum() + layer(b).exp().sum()).backward()


def with_many_dimensions(layer: tts.nn.SparseLayer) -> None:
    layer(inputs(1, 2, 3)[0]).square().sum().backward()


def one_sample(layer: tts.nn.SparseLayer) -> None:
    layer(inputs(1)[0][0]).square().sum().backward()


def with_an_expanded_gradient(layer: tts.nn.SparseLayer) -> None:
    layer(inputs()[0]).sum().backward()


def followed_by_an_activation_in_place(layer: tts.nn.SparseLayer) -> None:
    torch.relu_(layer(inputs()[0])).sum().backward()


def checkpointed(layer: tts.nn.SparseLayer) -> None:
    x = inputs()[0].requires_grad_()
    checkpoint(lambda x: layer(x).square(), x, use_reentrant=False).sum().backward()


def checkpointed_reentrantly(layer: tts.nn.SparseLayer) -> None:
    for x in inputs(2):
        x.requires_grad_()
        checkpoint(lambda x: layer(x).square(), x, use_reentrant=True).sum().backward()


def beside_an_evaluation(layer: tts.nn.SparseLayer) -> None:
    once(layer)
    with torch.no_grad():
        layer(inputs()[1])
    layer(inputs()[2])  # never backward


def beside_a_gradient_that_is_not_accumulated(layer: tts.nn.SparseLayer) -> None:
    a, b, _ = inputs()
    torch.autograd.grad(layer(a).exp().sum(), layer.weight_parameter)
    layer(b).square().sum().backward()
    torch.autograd.grad(layer(a).exp().sum(), layer.weight_parameter)


def with_a_gradient_of_the_gradient(layer: tts.nn.SparseLayer) -> None:
    output = layer(inputs()[0]).square().sum()
    (penalty,) = torch.autograd.grad(output, layer.bias, create_graph=True)
    penalty.square().sum().backward()


def after_the_gradient_was_zeroed(layer: tts.nn.SparseLayer) -> None:
    a, b, c = inputs()
    layer(a).exp().sum().backward()
    layer.zero_grad()
    layer(b).exp().sum().backward()
    layer.zero_grad(set_to_none=False)
    layer(c).square().sum().backward()


def in_a_graph_that_is_used_twice(layer: tts.nn.SparseLayer) -> None:
    loss = layer(inputs()[0]).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()


@both_twins
@pytest.mark.parametrize(
    "way",
    [
        once,
        by_keyword,
        accumulated,
        twice_in_one_pass,
        with_many_dimensions,
        one_sample,
        with_an_expanded_gradient,
        followed_by_an_activation_in_place,
        checkpointed,
        checkpointed_reentrantly,
        beside_an_evaluation,
        beside_a_gradient_that_is_not_accumulated,
        with_a_gradient_of_the_gradient,
        after_the_gradient_was_zeroed,
        in_a_graph_that_is_used_twice,
    ],
)
def test_captures_exactly_what_arrives_in_grad(layer_type, way) -> None:
    layer = layer_of(layer_type)
    capture = GradientCapture(layer, 1)
    way(layer)
    check(layer, capture)
    capture.end_step()
    check(layer, capture)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_captures_inputs_in_half_precision(dtype: torch.dtype) -> None:
    layer = tts.TrulySparseLinear(6, 5, nnz=12, generator=seeded())
    capture = GradientCapture(layer, 1)
    layer(inputs()[0].to(dtype)).float().square().sum().backward()
    assert whole_gradient(layer, capture).dtype == torch.float32
    check(layer, capture)


def test_under_autocast_input_and_gradient_may_differ_in_dtype() -> None:
    layer = tts.MaskedLinear(6, 5, nnz=12, generator=seeded())
    capture = GradientCapture(layer, 1)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(inputs()[0].float())
    output.float().square().sum().backward()
    rows, columns = layer.indices
    captured = whole_gradient(layer, capture)[rows, columns]
    expected = layer.gather(layer.weight.grad)  # through weights and inputs in bfloat16
    torch.testing.assert_close(captured, expected, rtol=0.02, atol=0.02)


def test_the_last_steps_are_kept_and_older_ones_are_not() -> None:
    layer, capture = (layer := layer_of()), GradientCapture(layer, 2)
    for x in inputs(3):
        layer.zero_grad()
        layer(x).sum().backward()
        capture.end_step()
    assert [len(step) for step in capture.captured] == [1, 1]
    assert torch.equal(capture.captured[-1][0].input, inputs(3)[-1])
    layer(inputs()[0]).sum().backward()  # not followed by a step yet
    assert torch.equal(capture.captured[-1][0].input, inputs()[0])
    assert len(capture.captured) == 2
    capture.drop_step()
    assert torch.equal(capture.captured[-1][0].input, inputs(3)[-1])


def hooks(layer: nn.Module) -> int:
    of_parameters = [
        parameter._post_accumulate_grad_hooks or () for parameter in layer.parameters()
    ]
    return len(layer._forward_hooks) + sum(map(len, of_parameters))


def test_nothing_stays_alive_after_release() -> None:
    layer = layer_of()
    capture = GradientCapture(layer, 1)
    x = inputs()[0]
    output = layer(x.clone())
    output.sum().backward()
    references = [
        weakref.ref(x),
        *(weakref.ref(p.grad_output) for s in capture.captured for p in s),
    ]
    inner = weakref.ref(capture.captured[0][0].input)
    assert hooks(layer) == 2
    capture.release()
    del x
    gc.collect()
    assert not hooks(layer)
    assert inner() is None  # although the graph is still alive
    assert [reference() for reference in references] == [None, None]
    assert output.grad_fn is not None
    layer(inputs()[1]).sum().backward()
    assert not capture.captured


def pairs_alive() -> int:
    return sum(type(thing) is Pass for thing in gc.get_objects())


def test_copies_and_pickles_of_an_armed_layer_capture_nothing() -> None:
    layer = layer_of()
    capture = GradientCapture(layer, 1)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        before = pairs_alive()
        output = other(inputs()[0])
        output.sum().backward()
        assert not capture.captured
        assert pairs_alive() == before
        assert torch.equal(other(inputs()[0]), layer(inputs()[0]))
    once(layer)
    check(layer, capture)


def test_captures_of_a_network_take_the_layers_that_train() -> None:
    model = network()
    model[2].requires_grad_(False)
    captures = GradientCaptures()
    captures.arm({"0": model[0], "2": model[2]}, 1)
    model(torch.randn(3, 12)).sum().backward()
    captures.end_step()
    assert captures.armed
    assert [len(step) for step in captures.of("0")] == [1]
    assert captures.of("2") == ()
    captures.release()
    assert not captures.armed
    assert not hooks(model[0])


@both_twins
def test_layers_are_armed_for_the_step_before_an_evolution_alone(layer_type) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, regrow="gradient", every=3, stop=5)
    armed = []
    for step in range(9):
        armed.append(bool(model[0]._forward_hooks))
        optimizer.zero_grad()
        model(torch.randn(4, 12, generator=seeded(step))).square().mean().backward()
        optimizer.step()
    assert armed == [False, False, False, True, False, False, False, False, False]
    assert [record.step for record in evolution.history] == [4]


def test_other_rules_never_arm() -> None:
    model = network()
    evolution = tts.SparseEvolution(model, sgd(model), every=1)
    evolution.arm()
    assert not hooks(model[0])


def test_removing_an_evolution_lets_go() -> None:
    model = network()
    evolution = tts.SparseEvolution(model, sgd(model), regrow="gradient")
    evolution.arm()
    assert hooks(model[0])
    evolution.remove()
    assert not hooks(model[0])
