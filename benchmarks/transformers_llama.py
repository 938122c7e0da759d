"""A baseline to stand beside: transformers' Llama of the same shape, generating with its cache, from 1k to 8k tokens.

The same weights run as a plain Llama in our engine (the gate: the same tokens), and as an Infini-Attention model, whose
cost a token does not grow.
"""

from __future__ import annotations

import torch

from benchmarks._harness import Metric, answered, fastest, gate, temporary_folder
from benchmarks._models import config_of, random_model, random_prompts, shape
from infini_eval.config import ModelSettings
from infini_eval.engine.native_model import NativeModel

NEW_TOKENS = 15


def run(toy: bool) -> list[Metric]:
    def model(segment: int | None) -> NativeModel:
        sizes = shape(64, 96, 2, 4, 2, 512, segment) if toy else shape(512, 1408, 4, 8, 4, 4096, segment)
        with temporary_folder() as folder:
            return random_model(config_of(sizes, folder), ModelSettings(dtype="float32", device="cpu"))

    infini, plain = model(32 if toy else 1024), model(None)
    theirs = transformers_twin(plain)
    metrics = []
    for tokens in (100, 200) if toy else (1024, 4096, 8192):
        prompt = random_prompts(plain, tokens)[0]
        contenders = {
            "theirs": lambda p=prompt: generate(theirs, p),
            "plain": lambda p=prompt: plain.generate([p], NEW_TOKENS, stop_ids=())[0],
            "infini": lambda p=prompt: infini.generate([p], NEW_TOKENS, stop_ids=())[0],
        }
        times, answers = answered(contenders, 1 if toy else max(1, min(3, 8192 // tokens)))
        gate(answers["theirs"] == answers["plain"], f"transformers answers {tokens:,} tokens differently")
        seconds = fastest(times)
        note = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
        metrics.append(
            Metric(f"transformers_vs_infini_{tokens}", seconds["theirs"] / seconds["infini"], "x", note=note)
        )
    return metrics


def transformers_twin(model: NativeModel):
    """transformers' Llama with a plain model's weights; both keep q and k as pairs (x_0, x_{H/2})."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config, llama = model.config, model.llama
    twin = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            vocab_size=config.vocab_size,
            rms_norm_eps=config.rms_norm_eps,
            rope_theta=config.rope_theta,
            max_position_embeddings=1 << 17,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
        )
    ).eval()
    state = {
        "model.embed_tokens.weight": llama.embedding,
        "model.norm.weight": llama.final_norm,
        "lm_head.weight": llama.head,
    }
    for index, layer in enumerate(llama.layers):
        q, k, v = layer.qkv.split([size * config.head_dim for size in (llama.heads, llama.kv_heads, llama.kv_heads)])
        gated, up = layer.gate_up.chunk(2)
        parts = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v, "self_attn.o_proj": layer.o}
        parts |= {"mlp.gate_proj": gated, "mlp.up_proj": up, "mlp.down_proj": layer.down}
        parts |= {"input_layernorm": layer.input_norm, "post_attention_layernorm": layer.post_norm}
        state |= {f"model.layers.{index}.{name}.weight": weight for name, weight in parts.items()}
    twin.load_state_dict(state)
    return twin


def generate(twin, prompt) -> list[int]:
    ids = torch.from_numpy(prompt.astype("int64"))[None]
    with torch.inference_mode():
        out = twin.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return out[0, len(prompt) :].tolist()
