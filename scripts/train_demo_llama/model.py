"""The plain demo Llama in training: transformers' own modules, with logits only where a loss is taken.

Letters in names: B batch, T tokens, D width, N heads, H head width, K loss slots.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scripts.train_demo.data import NEEDLE_TAIL, QUESTION_TOKENS, Batch, Mix, Source
from scripts.train_demo.model import initial_weight
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, apply_rotary_pos_emb

TRAINED_LENGTH = 2048
ROPE_THETA = 500_000.0  # at 10,000 only 7 of 32 channel pairs turn less than a quarter over 2,048 tokens; here 14


def llama_config(vocab_size: int, end_token: int) -> LlamaConfig:
    """Heads of 64 because vLLM's CPU kernels want them; two of them, so that two tensor-parallel ranks can share."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=TRAINED_LENGTH,
        rope_theta=ROPE_THETA,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=end_token,
        eos_token_id=end_token,
        pad_token_id=end_token,
    )


class PlainLlama(nn.Module):
    """LlamaForCausalLM as the training loop sees it.

    While training, sequences get a jump in their positions between needle and question, so that a short
    sequence teaches distances up to TRAINED_LENGTH. Products are in bfloat16 while training; weights always float32.
    """

    def __init__(self, config: LlamaConfig, seed: int) -> None:
        super().__init__()
        self.llama = LlamaForCausalLM(config).float()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_weights().items():
                first = initial_weight(name, tuple(weight.shape), config.num_hidden_layers, generator)
                weight.copy_(first)

    def named_weights(self) -> dict[str, nn.Parameter]:
        """By the names of a Hugging Face checkpoint; the output layer is the embedding."""
        return dict(self.llama.named_parameters())

    def training_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`logits`; nothing is read from a memory, so no denominator can be too small."""
        return self.logits(batch), torch.zeros(())

    def logits(self, batch: Batch, ablate: bool = False) -> Tensor:
        """[B, K, vocab] at the batch's loss positions, in float32. There is no memory to `ablate`."""
        if ablate:
            raise ValueError("a plain Llama has no memory to take away")
        training = torch.is_grad_enabled()
        places_BT = stretched(batch) if training else torch.arange(batch.ids_BT.shape[1])[None]
        with torch.autocast(batch.ids_BT.device.type, torch.bfloat16, enabled=training):
            return self(batch.ids_BT, batch.position_BK, places_BT.to(batch.ids_BT.device)).float()

    def forward(self, ids_BT: Tensor, position_BK: Tensor, places_BT: Tensor) -> Tensor:
        """Logits at `position_BK` of tokens whose rotary positions are `places_BT` (increasing)."""
        llama = self.llama.model
        x_BTD = llama.embed_tokens(ids_BT)
        cos_BTH, sin_BTH = llama.rotary_emb(x_BTD, places_BT)
        for layer in llama.layers[:-1]:
            x_BTD = layer(x_BTD, attention_mask=None, position_embeddings=(cos_BTH, sin_BTH))
        x_BKD = last_layer(llama.layers[-1], x_BTD, position_BK, cos_BTH, sin_BTH)
        return self.llama.lm_head(llama.norm(x_BKD))

    def before_step(self, source: Source, mix: Mix, step: int) -> None:
        """Nothing is prepared."""

    def after_step(self) -> None:
        pass

    def note(self) -> str:
        return ""


def last_layer(layer: LlamaDecoderLayer, x_BTD: Tensor, position_BK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[B, K, D]: the last layer at the loss positions only, since nothing after its attention mixes tokens."""
    attention = layer.self_attn
    normed_BTD = layer.input_layernorm(x_BTD)
    q, k, v = (
        product(normed_BTD).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for product in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q_BNTH, k_BNTH = apply_rotary_pos_emb(q, k, cos, sin)
    q_BNKH = q_BNTH.gather(2, position_BK[:, None, :, None].expand(-1, q_BNTH.shape[1], -1, q_BNTH.shape[3]))
    visible_B1KT = torch.arange(x_BTD.shape[1], device=x_BTD.device) <= position_BK[:, None, :, None]
    mixed_BNKH = F.scaled_dot_product_attention(q_BNKH, k_BNTH, v, visible_B1KT)
    residual_BKD = x_BTD.gather(1, position_BK[..., None].expand(-1, -1, x_BTD.shape[-1]))
    x_BKD = residual_BKD + attention.o_proj(mixed_BNKH.transpose(1, 2).flatten(2))
    return x_BKD + layer.mlp(layer.post_attention_layernorm(x_BKD))


def stretched(batch: Batch) -> Tensor:
    """[B, T] rotary positions: half of the sequences jump once, somewhere in the haystack after the needle.

    With the jump the last position is uniform up to TRAINED_LENGTH. The draws depend on the batch alone, so a resumed
    run makes the same ones.
    """
    generator = torch.Generator().manual_seed(int(batch.ids_BT.sum()))
    tokens = torch.arange(batch.ids_BT.shape[1])
    places_BT = tokens.repeat(len(batch.ids_BT), 1)
    for row, (position, copy, answer) in enumerate(zip(batch.position_BK, batch.copy_BK, batch.answer_BK)):
        first = int(position[copy > 0].max()) + 1 + NEEDLE_TAIL
        last = int(position[answer > 0].min()) + 1 - QUESTION_TOKENS
        draw = torch.rand(3, generator=generator).tolist()
        room = TRAINED_LENGTH - len(tokens)
        if last > first and room > 0 and draw[0] < 0.5:
            border = first + int(draw[1] * (last - first))
            places_BT[row] += int(draw[2] * room) * (tokens >= border)
    return places_BT
