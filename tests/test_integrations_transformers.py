"""`integrations.transformers`: saving, loading and training with the real library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_python
from torch import nn

import torch_truly_sparse as tts

transformers = pytest.importorskip("transformers")

from torch_truly_sparse.integrations.logger import SparsityLogger  # noqa: E402
from torch_truly_sparse.integrations.transformers import (  # noqa: E402
    EvolutionCallback,
    record_sparsity,
    sparsify,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Failed to load"),
]

IDS = torch.randint(50, (6, 9), generator=torch.Generator().manual_seed(0))
SMALL = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2}


def bert() -> Any:
    torch.manual_seed(1)
    config = transformers.BertConfig(hidden_size=32, intermediate_size=48, **SMALL)
    return transformers.BertForSequenceClassification(config).eval()


def gpt2() -> Any:
    torch.manual_seed(1)
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=16)
    return transformers.GPT2LMHeadModel(config).eval()


def t5() -> Any:
    torch.manual_seed(1)
    config = transformers.T5Config(
        vocab_size=50, d_model=32, d_ff=48, d_kv=16, num_layers=2, num_heads=2
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def llama() -> Any:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_key_value_heads=2, **SMALL
    )
    return transformers.LlamaForCausalLM(config).eval()


MODELS = {"bert": bert, "gpt2": gpt2, "t5": t5, "llama": llama}
each_model = pytest.mark.parametrize("name", MODELS)
HEADS = ["lm_head", "classifier"]  # tied to the embedding, or small


def exclude(model: Any) -> list[str]:
    return [name for name in HEADS if hasattr(model, name)]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    return model(input_ids=IDS, **more).logits


def sparse_layers(model: Any) -> dict[str, tts.TrulySparseLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, tts.TrulySparseLinear)}


@each_model
def test_what_is_saved_is_loaded(name: str, tmp_path: Path) -> None:
    dense = MODELS[name]()
    model = sparsify(dense, density=0.2, init="magnitude", exclude=exclude(dense))
    assert len(sparse_layers(model)) >= 8
    model.save_pretrained(tmp_path)
    loaded = type(dense).from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert sparse_layers(loaded).keys() == sparse_layers(model).keys()
    for layer_name, layer in sparse_layers(loaded).items():
        assert layer.nnz == sparse_layers(model)[layer_name].nnz
        assert layer.values.requires_grad
    automatic = transformers.AutoModel.from_pretrained(tmp_path)  # without the head
    assert len(sparse_layers(automatic)) == len(sparse_layers(model))
    loaded.save_pretrained(tmp_path / "again")
    again = type(dense).from_pretrained(tmp_path / "again")
    assert torch.equal(logits(again), logits(model))


@each_model
def test_a_full_conversion_of_a_model_computes_the_same(name: str) -> None:
    """Keeping nearly all weights leaves the outputs nearly as they are, Conv1D or not."""
    dense = MODELS[name]()
    model = sparsify(dense, density=0.999, init="magnitude", exclude=exclude(dense))
    torch.testing.assert_close(logits(model), logits(dense), rtol=0.05, atol=0.01)
    assert not sparse_layers(dense)  # it is as it was


def test_layers_that_stay_dense_stay_conv1d(tmp_path: Path) -> None:
    dense = gpt2()
    model = sparsify(dense, density=0.2, init="magnitude", exclude=["*attn*", "lm_head"])
    kinds = [type(model.transformer.h[0].attn.c_attn), type(model.transformer.h[0].mlp.c_fc)]
    assert kinds == [transformers.pytorch_utils.Conv1D, tts.TrulySparseLinear]
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(type(dense).from_pretrained(tmp_path)), logits(model))


def test_a_refusal_leaves_the_model_as_it_was() -> None:
    model = gpt2()
    before = logits(model)
    with pytest.raises(ValueError, match="matches no"):
        sparsify(model, inplace=True, density=0.2, exclude=["nothing"])
    assert not any(type(m) is nn.Linear for n, m in model.named_modules() if n != "lm_head")
    assert torch.equal(logits(model), before)
    with pytest.raises(TypeError, match=r"tts\.sparsify"):
        sparsify(nn.Sequential(nn.Linear(2, 2)), density=0.5)
    with pytest.raises(ValueError, match="no truly sparse layer"):
        record_sparsity(model)


def test_a_process_without_this_module_raises(tmp_path: Path) -> None:
    sparsify(bert(), density=0.2, exclude=["classifier"]).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"]["layers"]
    program = "import transformers; transformers.AutoModel.from_pretrained('.')"
    done = run_python("-c", program, cwd=tmp_path)
    assert done.returncode != 0
    assert "truly_sparse" in done.stderr


def test_a_configuration_of_another_model_raises(tmp_path: Path) -> None:
    sparsify(bert(), density=0.2, exclude=["classifier"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["layers"]["bert.nowhere"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"bert\.nowhere.*no such layer"):
        transformers.BertForSequenceClassification.from_pretrained(tmp_path)


# Trainer


class Data(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 28

    def __getitem__(self, i: int) -> dict[str, Any]:
        ids = torch.randint(50, (9,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "labels": int(ids[0] > 25)}


def trainer(model: Any, folder: Path, *callbacks: Any, **settings: Any) -> Any:
    chosen = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "save_strategy": "steps",
        "save_steps": 9,
        "learning_rate": 1e-3,
        "seed": 0,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        **settings,
    }
    arguments = transformers.TrainingArguments(str(folder), **chosen)
    return transformers.Trainer(model, arguments, train_dataset=Data(), callbacks=list(callbacks))


def sparse_bert() -> Any:
    generator = torch.Generator().manual_seed(3)
    return sparsify(bert(), density=0.2, exclude=["classifier"], generator=generator).train()


def evolving(method: Any, every: Any = 4) -> EvolutionCallback:
    return EvolutionCallback(method, every=every, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("method", [tts.SET, tts.RigL])
def test_a_resumed_training_equals_one_that_never_stopped(method: Any, tmp_path: Path) -> None:
    whole, first = sparse_bert(), evolving(method)
    begun = {n: layer.indices.clone() for n, layer in sparse_layers(whole).items()}
    trainer(whole, tmp_path, first).train()
    resumed, second = sparse_bert(), evolving(method)
    trainer(resumed, tmp_path, second).train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert second.evolution.steps == 21
    assert first.evolution.history == second.evolution.history
    assert len(second.evolution.history) > 2
    assert any(not torch.equal(begun[n], m.indices) for n, m in sparse_layers(whole).items())


def test_a_loaded_model_trains_on(tmp_path: Path) -> None:
    sparse_bert().save_pretrained(tmp_path / "saved")
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "saved")
    written: list[int] = []
    logger = SparsityLogger(lambda name, value, step: written.append(step))
    callback = EvolutionCallback(tts.SET, every="epoch", logger=logger)
    trainer(model, tmp_path, callback, gradient_accumulation_steps=2).train()
    assert callback.evolution.every == 4  # 7 batches, accumulated in pairs
    assert set(written) == {record.step for record in callback.evolution.history} == {5, 9}


def test_a_checkpoint_without_the_evolution_is_refused(tmp_path: Path) -> None:
    trainer(sparse_bert(), tmp_path).train()  # without the callback
    with pytest.raises(ValueError, match="the evolution would begin anew"):
        trainer(sparse_bert(), tmp_path, evolving(tts.SET)).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-9")
        )


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match='`every` must be "epoch"'):
        EvolutionCallback(tts.SET, every="step")
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        EvolutionCallback(tts.SET, every=0)
