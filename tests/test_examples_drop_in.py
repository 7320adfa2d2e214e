"""examples/drop_in.py, with a transformer small enough for a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import drop_in
import pytest
import torch
from drop_in_study import training, transformer, worker
from drop_in_study.command_line import parse, settings_of
from drop_in_study.results import load_results
from drop_in_study.settings import PRESETS, Settings
from drop_in_study.text import OTHER, VOCABULARY, Sequences, Text, encode, read_standard_library
from microarray_study.errors import InputError, RunError

import torch_truly_sparse as tts

TINY = Settings(
    width=16, feed_forward=32, heads=2, blocks=2, context=12, batch_size=4, steps=30, warmup=5,
    evaluate_every=20, held_out=8, dense_lr=0.01, sparse_lr=0.02,
    feed_forward_density=0.25, attention_density=0.5,
)  # fmt: skip
COMMAND = "--width 16 --feed-forward 32 --heads 2 --context 12 --batch-size 4 --blocks 1 --steps 3"


def text() -> Text:
    return Text(encode("def f(x): return x\n" * 80), encode("def g(x): return x\n" * 20), "")


def test_a_whole_run_keeps_its_results_and_goes_on_from_them(tmp_path: Path, capsys) -> None:
    command = [*COMMAND.split(), "--output", str(tmp_path)]
    assert drop_in.main([*command, "--forms", "sparse"]) == 0
    assert "dense" not in load_results(tmp_path / "small.json").runs
    assert drop_in.main(command) == 0
    printed = capsys.readouterr().out
    assert "sparse: done already" in printed
    results = load_results(tmp_path / "small.json")
    assert list(results.runs) == ["dense", "sparse"]
    dense, sparse = results.runs["dense"], results.runs["sparse"]
    positions = {"attention": 4 * 16 * 16, "feed_forward": 2 * 16 * 32, "head": 16 * VOCABULARY}
    assert dense.weights == sum(positions.values())
    assert sparse.weights == 4 * 51 + 2 * 51 + positions["head"]  # 20 % and 10 %, rounded
    assert dense.evaluated_at == sparse.evaluated_at == [3]
    assert len(dense.train_losses) == 3
    assert dense.held_out_losses[-1] == dense.held_out_loss > 0
    assert (tmp_path / "small.png").stat().st_size > 10_000
    assert drop_in.main([*command, "--steps", "4"]) == 2
    assert "holds results of another setting (settings changed)" in capsys.readouterr().err


def test_both_forms_learn_from_the_same_batches() -> None:
    curves = {}
    for form in "dense", "sparse":
        model = transformer.build(form, TINY)
        curves[form] = training.train(model, form, text(), TINY, lambda _: None)
        assert curves[form].evaluated_at == [20, 30]
        assert curves[form].held_out_loss[-1] < 0.8 * curves[form].train_loss[0]
    batches = [Sequences(text().train, 12, 4, TINY.seed).draw()[0] for _ in range(2)]
    assert torch.equal(*batches)


def test_the_sparse_form_is_the_dense_one_with_sparse_projections() -> None:
    dense, sparse = (transformer.build(form, TINY) for form in ("dense", "sparse"))
    rows = {row.name: row for row in tts.summary(sparse).rows}
    assert list(rows) == [row.name for row in tts.summary(dense).rows]
    for name, row in rows.items():
        density = 0.25 if "feed_forward" in name else 1.0 if name == "head" else 0.5
        assert row.density == density, name
    assert len(transformer.feed_forward_parts(sparse)) == 2
    assert worker.feed_forward_seconds(sparse, TINY) > 0


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_the_weights_start_at_the_scale_of_their_inputs(form) -> None:
    torch.manual_seed(0)
    wide = replace(TINY, width=128, feed_forward=512, feed_forward_density=0.1)
    model = transformer.build(form, wide)
    assert model.characters.weight.std().item() == pytest.approx(0.02, rel=0.05)
    first, _, last = model.blocks[0].feed_forward
    for layer, inputs in (first, 128), (last, 512):
        sparse = form == "sparse"
        weights, inputs = (layer.values, inputs / 10) if sparse else (layer.weight, inputs)
        # Uniform within 1 / sqrt(inputs), which differ from unit to unit where it is sparse.
        assert weights.std().item() == pytest.approx((3 * inputs) ** -0.5, rel=0.1)


def test_the_forms_share_their_optimizer_but_for_the_rate(monkeypatch) -> None:
    made = []

    class Recording(torch.optim.AdamW):
        def __init__(self, *arguments, **settings) -> None:
            super().__init__(*arguments, **settings)
            made.extend((group["betas"], group["lr"]) for group in self.param_groups)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    settings = replace(TINY, steps=1, beta2=0.9, warmup=0, dense_lr=0.01, sparse_lr=0.02)
    for form in "dense", "sparse":
        training.train(transformer.build(form, TINY), form, text(), settings, lambda _: None)
    assert made == [((0.9, 0.9), 0.01), ((0.9, 0.9), 0.02)]


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [training.rate(step, TINY) for step in range(31)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(1.0)
    assert rates[30] == pytest.approx(0.1)
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_it_may_evolve(monkeypatch) -> None:
    model = transformer.build("sparse", TINY)
    before = model.blocks[0].feed_forward[0].indices.clone()
    training.train(model, "sparse", text(), replace(TINY, evolve_every=10), lambda _: None)
    assert not torch.equal(model.blocks[0].feed_forward[0].indices, before)


def test_attention_sees_only_what_came_before() -> None:
    model = transformer.build("sparse", TINY)
    one = torch.randint(VOCABULARY, (1, 12))
    other = one.clone()
    other[0, 7] = (other[0, 7] + 1) % VOCABULARY
    with torch.no_grad():
        differs = (model(one) != model(other)).any(-1)[0]
    assert not differs[:7].any()
    assert differs[7:].all()


def test_products_of_turned_queries_and_keys_depend_on_distances_alone() -> None:
    query, key = torch.randn(2, 1, 8).expand(2, 20, 8), torch.randn(2, 1, 8).expand(2, 20, 8)
    products = transformer.rotated(query) @ transformer.rotated(key).mT
    torch.testing.assert_close(products[:, 1:, 1:], products[:, :-1, :-1])
    torch.testing.assert_close(products.diagonal(dim1=1, dim2=2), (query * key).sum(-1))
    assert products.std() > 0.1
    torch.testing.assert_close(transformer.rotated(query).norm(dim=-1), query.norm(dim=-1))


def test_the_text_is_that_of_whole_files_and_the_same_each_time() -> None:
    one, same, other = (read_standard_library(120_000, seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert torch.equal(one.train, same.train)
    assert one.train.numel() >= 120_000
    assert one.train.max() < VOCABULARY
    assert encode("a\u00e9").tolist() == [10, OTHER]


def test_a_diverging_training_says_so() -> None:
    model = transformer.build("dense", TINY)
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    with pytest.raises(RunError, match=r"^diverged in step 1; lower --dense-lr"):
        training.train(model, "dense", text(), TINY, lambda _: None)


def test_options_become_settings(capsys) -> None:
    assert settings_of(parse("", [])) == PRESETS["small"]
    wide = settings_of(parse("", ["--preset", "wide", "--steps", "7", "--sparse-lr", "0.1"]))
    assert wide == replace(PRESETS["wide"], steps=7, sparse_lr=0.1)
    with pytest.raises(InputError, match=r"--heads must divide --width into even parts, got 3 and"):
        settings_of(parse("", ["--heads", "3"]))
    with pytest.raises(SystemExit):
        parse("", ["--forms", "masked"])
    assert "must be among dense, sparse, got 'masked'" in capsys.readouterr().err


def test_the_judged_setting() -> None:
    wide = PRESETS["wide"]
    assert (wide.width, wide.feed_forward, wide.feed_forward_density) == (640, 2560, 0.1)
    assert wide.context * wide.batch_size == 1024


def test_a_broken_results_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(InputError, match=r"small.json: is no readable results file"):
        load_results(path)
