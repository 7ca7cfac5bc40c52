from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from cut_dist import export as export_module
from cut_dist.data.examples import Example
from cut_dist.export import ExportError, export_model, mean_nll
from cut_dist.model.tiny import byte_tokenizer

PROBE = Example("probe", False, {"instruction": np.arange(5, 15, dtype=np.int32)}, np.arange(40, 48, dtype=np.int32))


def tiny(tied: bool = True):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=259, **sizes, max_position_embeddings=64, tie_word_embeddings=tied)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def export(model, target, *, nll: float) -> float:
    return export_model(model, weights(model), byte_tokenizer(), target, probe=PROBE, nll=nll)


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_written_is_what_was_trained(tmp_path, tied):
    model = tiny(tied)
    model.config.use_cache = False
    target = tmp_path / "model"
    nll = export(model, target, nll=mean_nll(model, PROBE))
    assert nll == pytest.approx(mean_nll(model, PROBE), rel=1e-5)
    again = AutoModelForCausalLM.from_pretrained(target)
    assert again.config.use_cache and again.config.tie_word_embeddings == tied
    assert not list(tmp_path.glob("*.partial"))
    assert not list(target.glob("*.bin")), "weights are released as safetensors only"


def test_a_model_that_computes_another_loss_is_refused_and_gets_no_name(tmp_path):
    model = tiny()
    with pytest.raises(ExportError, match="loss of probe"):
        export(model, tmp_path / "model", nll=mean_nll(model, PROBE) + 0.1)
    assert not (tmp_path / "model").exists()


def test_a_tensor_that_changed_on_disk_is_found(tmp_path, monkeypatch):
    def spoil(state, folder):
        write(state | {"model.norm.weight": state["model.norm.weight"] + 1e-3}, folder)

    write = export_module.save_torch_state_dict
    monkeypatch.setattr(export_module, "save_torch_state_dict", spoil)
    model = tiny()
    with pytest.raises(ExportError, match="model.norm.weight"):
        export(model, tmp_path / "model", nll=mean_nll(model, PROBE))


def test_an_earlier_export_is_replaced_only_by_a_good_one(tmp_path):
    model, target = tiny(), tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(ExportError):
        export(model, target, nll=0.0)
    assert (target / "old").exists()
    export(model, target, nll=mean_nll(model, PROBE))
    assert not (target / "old").exists()
