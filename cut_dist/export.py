"""The trained model as a Hugging Face folder, written once and read back before anyone relies on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from cut_dist.data.examples import Example


class ExportError(RuntimeError):
    """The written model is not the trained one."""


def export_model(
    model: PreTrainedModel,
    state: dict[str, torch.Tensor],
    tokenizer: Tokenizer,
    target: Path,
    *,
    probe: Example,
    nll: float,
) -> float:
    """Write `target` (safetensors, config, tokenizer), reload it, and compare weights and loss. Rank 0 only.

    The folder gets its name only after the check, so a folder of that name is a good one.

    Args:
        model: gives config and generation config; its weights may be partitioned away.
        state: all weights by Hugging Face name, on the host.
        target: must not exist, or is replaced.
        probe: an example to compare the loss on.
        nll: its mean negative log-likelihood in the instruction context, as the training engine computed it.

    Returns:
        The same number as the reloaded model computes it.

    Raises:
        ExportError: if a tensor or the loss differs.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_torch_state_dict(state, partial)
    config = type(model.config).from_dict({**model.config.to_dict(), "use_cache": True})
    config.architectures = [type(model).__name__]
    config.dtype = next(iter(state.values())).dtype
    config.save_pretrained(partial)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(partial)
    tokenizer.save_pretrained(partial)

    reloaded = AutoModelForCausalLM.from_pretrained(partial, dtype=config.dtype).eval()
    read_back = reloaded.state_dict()
    for name, tensor in state.items():
        if not torch.equal(read_back[name], tensor):
            raise ExportError(f"{partial}: {name} read back is not what was written")
    again = mean_nll(reloaded, probe)
    tolerance = 1e-3 if config.dtype == torch.float32 else 5e-2  # other kernels, another order of sums
    if not abs(again - nll) <= tolerance * max(1.0, abs(nll)):
        raise ExportError(f"{partial}: loss of {probe.id} is {again:.5f} reloaded and {nll:.5f} in training")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return again


@torch.no_grad()
def mean_nll(model: PreTrainedModel, example: Example) -> float:
    """Mean −log p of the response tokens in the instruction context, by the model's plain forward."""
    prompt = torch.from_numpy(example.prompt_ids["instruction"]).long()
    response = torch.from_numpy(example.response_ids).long()
    logits = model(torch.cat([prompt, response])[None].to(model.device)).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits.float(), response.to(model.device)).item()
