"""The demo's Infini-Attention llama as a differentiable forward, batched over segments. Training only.

Letters in names: B batch, T tokens, S segments, L tokens of a segment, D width, N heads, H head width, K loss slots, C layers.
E is H + 1: M with z as its last column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scripts.train_demo.data import Batch, Mix, Source
from scripts.train_demo.past import Past, Pasts
from torch import Tensor, nn

from infini_eval.checkpoint.reader import Checkpoint

FLOOR = 1e-5  # of the reads' denominators: far under it a feature is rounded to 0, and a read is 0/0
RENEWED = 250  # steps after which the memories of long streams are made again
GATE_LIMIT = 2.4  # hard_sigmoid has no gradient outside +-2.5: a gate that got there would never move again


@dataclass(frozen=True)
class ModelConfig:
    """The demo's size; the names are those of a nanotron LlamaConfig."""

    hidden_size: int = 128
    intermediate_size: int = 352
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    vocab_size: int = 1024
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.num_attention_heads


class InfiniLlama(nn.Module):
    """Parameters in one flat dictionary under nanotron's global names, and the training forward.

    product_type: the type of the linear layers' products. Training takes bfloat16 for speed; weights, attention and
    memory are float32 always. floor: the least denominator of a memory read.
    """

    def __init__(self, config: ModelConfig, seed: int, product_type: torch.dtype = torch.bfloat16,
                 floor: float = FLOOR) -> None:  # fmt: skip
        super().__init__()
        self.config, self.product_type, self.floor = config, product_type, floor
        self._pasts: Pasts | None = None
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterDict()
        for name, shape in parameter_shapes(config).items():
            # A ParameterDict's key may not hold a dot, so it is swapped here and in `named_weights` only.
            self.weights[name.replace(".", "/")] = nn.Parameter(
                initial_weight(name, shape, config.num_hidden_layers, generator)
            )

    def named_weights(self) -> dict[str, nn.Parameter]:
        return {key.replace("/", "."): value for key, value in self.weights.items()}

    def forward(self, ids_BT: Tensor, position_BK: Tensor, segment_length: int, factor_BS: Tensor | None = None,
                ablate: bool = False) -> Tensor:  # fmt: skip
        """Logits [B, K, vocab] at the given positions; `ablate` reads nothing from memory (A = 0, gate kept)."""
        return self._run(ids_BT, position_BK, segment_length, factor_BS, ablate)[0]

    @torch.no_grad()
    def absorb(self, ids_BT: Tensor, segment_length: int, memory_CBNHE: Tensor | None = None) -> Tensor:
        """Read whole segments [B, T] on top of a memory: the memory [C, B, N, H, E] afterwards."""
        segment_B = torch.zeros(len(ids_BT), dtype=torch.int64)
        past = None if memory_CBNHE is None else Past(memory_CBNHE, segment_B)
        memories: list[Tensor] = []
        nowhere_BK = torch.zeros(len(ids_BT), 1, dtype=torch.int64)
        self._run(ids_BT, nowhere_BK, segment_length, None, False, past, memories)
        return torch.stack(memories)

    def _run(self, ids_BT: Tensor, position_BK: Tensor, segment_length: int, factor_BS: Tensor | None,
             ablate: bool, past: Past | None = None,
             memories: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Logits [B, K, vocab], and by how many nats denominators lie under the floor, a sum of means over the reads.

        Each layer's memory at the end is appended to `memories`.
        """
        shortfall = torch.zeros(())
        weights, config = self.named_weights(), self.config
        embedding_VD = weights["model.token_position_embeddings.pp_block.token_embedding.weight"]
        x_BTD = F.embedding(ids_BT, embedding_VD)
        gather_BKD = position_BK[..., None].expand(-1, -1, config.hidden_size)
        for layer in range(config.num_hidden_layers):
            prefix = f"model.decoder.{layer}.pp_block."
            block = {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}
            normed_BTD = rms_norm(x_BTD, block["input_layernorm.weight"], config.rms_norm_eps)
            here = None if past is None else Past(past.memory_CBNHE[layer], past.segment_B)
            options = (segment_length, factor_BS, ablate, here, memories)
            mixed_BTD, short = self._attention(block, normed_BTD, *options)
            shortfall = shortfall + short
            if layer == config.num_hidden_layers - 1:
                # Nothing after the last attention mixes tokens, so only the positions with a loss go on.
                mixed_BTD, x_BTD = mixed_BTD.gather(1, gather_BKD), x_BTD.gather(1, gather_BKD)
            x_BTD = x_BTD + self._linear(mixed_BTD, block["attn.o_proj.weight"])
            normed_BTD = rms_norm(x_BTD, block["post_attention_layernorm.weight"], config.rms_norm_eps)
            gate_BTF, up_BTF = self._linear(normed_BTD, block["mlp.gate_up_proj.weight"]).chunk(2, -1)
            x_BTD = x_BTD + self._linear(F.silu(gate_BTF) * up_BTF, block["mlp.down_proj.weight"])
        x_BKD = rms_norm(x_BTD, weights["model.final_layer_norm.pp_block.weight"], config.rms_norm_eps)
        return F.linear(x_BKD, embedding_VD), shortfall

    def logits(self, batch: Batch, ablate: bool = False) -> Tensor:
        """Logits [B, K, vocab] at a batch's loss positions."""
        return self(batch.ids_BT, batch.position_BK, batch.segment_length, batch.factor_BS, ablate)

    def training_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same with the batch's pasts, and what the denominators lack, for the loss."""
        past = self._pasts.of(batch) if self._pasts is not None else None
        return self._run(batch.ids_BT, batch.position_BK, batch.segment_length, batch.factor_BS, False, past)

    def before_step(self, source: Source, mix: Mix, step: int) -> None:
        """Reads long streams with the weights of now, every RENEWED steps and at a run's start."""
        if mix.past and (self._pasts is None or step % RENEWED == 0):
            self._pasts = Pasts(self.absorb, source, step, mix.segment_length)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keeps the balance factors where they have a gradient."""
        for weight in self._gates():
            weight.clamp_(-GATE_LIMIT, GATE_LIMIT)

    def note(self) -> str:
        """What a log line says of the model."""
        gates = torch.cat(self._gates())
        return f" gates {gates.min():.2f}..{gates.max():.2f}"

    def _gates(self) -> list[nn.Parameter]:
        return [weight for name, weight in self.named_weights().items() if name.endswith("balance_factors")]

    def _linear(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x.to(self.product_type), weight.to(self.product_type)).float()

    def _attention(self, block: dict[str, Tensor], x_BTD: Tensor, length: int, factor_BS: Tensor | None,
                   ablate: bool, past: Past | None, memories: list[Tensor] | None) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Gate-weighted sum of local attention and memory reads before the output projection, and `_run`'s shortfall."""
        batch, tokens, _ = x_BTD.shape
        heads, width, segments = self.config.num_attention_heads, self.config.head_width, tokens // length
        qkv = self._linear(x_BTD, block["attn.qkv_proj.weight"])
        qkv_XBSNLH = qkv.view(batch, segments, length, 3, heads, width).permute(3, 0, 1, 4, 2, 5)
        _, k_BSNLH, v_BSNLH = qkv_XBSNLH.unbind()
        cos_LH, sin_LH = rope_tables(length, width, self.config.rope_theta, x_BTD.device)
        rotated_BSNLH, rotated_k_BSNLH = rotate(qkv_XBSNLH[:2], cos_LH, sin_LH).unbind()
        local_BSNLH = local_attention(rotated_BSNLH, rotated_k_BSNLH, v_BSNLH)
        gate_N11 = (0.2 * block["attn.balance_factors"] + 0.5).clamp(0, 1)[:, None, None]
        mixed_BSNLH, shortfall = (1 - gate_N11) * local_BSNLH, torch.zeros(())
        if (segments > 1 or past is not None or memories is not None) and not ablate:
            # The reference reads the memory with the rotated query and writes it with the plain key.
            features = F.elu(rotated_BSNLH) + 1, F.elu(k_BSNLH) + 1
            read_BSNLH, shortfall = memory_reads(*features, v_BSNLH, factor_BS, self.floor, past, memories)
            mixed_BSNLH = mixed_BSNLH + gate_N11 * read_BSNLH
        return mixed_BSNLH.transpose(2, 3).reshape(batch, tokens, heads * width), shortfall


@torch.no_grad()
def copy_weights(model: InfiniLlama, checkpoint: Checkpoint) -> None:
    """Makes the model's weights those of a checkpoint of the same shape."""
    for name, weight in model.named_weights().items():
        weight.copy_(checkpoint.read(name))


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Global parameter names and shapes of a tied nanotron Infini-Attention llama."""
    width, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.token_position_embeddings.pp_block.token_embedding.weight": (config.vocab_size, width)
    }
    for layer in range(config.num_hidden_layers):
        prefix = f"model.decoder.{layer}.pp_block."
        shapes |= {
            prefix + "input_layernorm.weight": (width,),
            prefix + "attn.qkv_proj.weight": (3 * width, width),
            prefix + "attn.o_proj.weight": (width, width),
            prefix + "attn.balance_factors": (heads,),
            prefix + "post_attention_layernorm.weight": (width,),
            prefix + "mlp.gate_up_proj.weight": (2 * inner, width),
            prefix + "mlp.down_proj.weight": (width, inner),
        }
    return shapes | {"model.final_layer_norm.pp_block.weight": (width,)}


def initial_weight(name: str, shape: tuple[int, ...], layers: int, generator: torch.Generator) -> Tensor:
    """A parameter's first value, by its name: zeros for gates, ones for norms, otherwise normal by the fan-in."""
    if name.endswith("balance_factors"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    scale = 0.05 if "embed" in name else 1 / math.sqrt(shape[1])
    if "o_proj" in name or "down_proj" in name:
        scale /= math.sqrt(2 * layers)
    return torch.randn(shape, generator=generator) * scale


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


def rope_tables(length: int, width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [L, H]; positions restart in every segment, neighbouring channels share an angle."""
    frequency = theta ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequency).repeat_interleave(2, -1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos_LH: Tensor, sin_LH: Tensor) -> Tensor:
    """Interleaved rotary embedding: the pairs are (0, 1), (2, 3), ..."""
    swapped = torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2)
    return x * cos_LH + swapped * sin_LH


def local_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention inside each segment: all segments of all sequences in one call."""
    flat = [t.reshape(-1, *t.shape[2:]) for t in (q, k, v)]
    return F.scaled_dot_product_attention(*flat, is_causal=True).view(q.shape)


def memory_reads(
    q_BSNLH: Tensor, k_BSNLH: Tensor, v_BSNLH: Tensor, factor_BS: Tensor | None, floor: float,
    past: Past | None = None, memories: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What every segment reads from the memory of the segments before it (0 where there are none), in float32; the shortfall.

    q and k are feature-mapped. The update of segment s is the delta rule, times factor_BS[:, s]: a factor f imitates
    f repetitions of the segment, so short sequences teach what a long stream asks for. `past` (of one layer) is added on the
    way. Denominators are at least the floor here; the shortfall says by how many nats they would be less. The memory after
    the last segment goes to `memories`.
    """
    reads, shortfall = [], torch.zeros(())
    batch, segments, heads, _, width = k_BSNLH.shape
    memory_BNHE = v_BSNLH.new_zeros(batch, heads, width, width + 1)
    full_B = torch.zeros(batch, dtype=torch.bool, device=memory_BNHE.device)  # rows whose memory is not empty
    for s, (q_BNLH, k_BNLH, v_BNLH) in enumerate(zip(*(t.unbind(1) for t in (q_BSNLH, k_BSNLH, v_BSNLH)), strict=True)):
        if past is not None:
            enters_B = past.segment_B == s
            memory_BNHE = memory_BNHE + past.memory_CBNHE * enters_B[:, None, None, None]
            full_B = full_B | enters_B
        old_BNLH, short = read(memory_BNHE, q_BNLH, full_B, floor)
        reads.append(old_BNLH)
        shortfall = shortfall + short
        if s == segments - 1 and memories is None:
            break
        old_BNLH, short = read(memory_BNHE, k_BNLH, full_B, floor)
        shortfall = shortfall + short
        update_BNHE = k_BNLH.transpose(-1, -2) @ F.pad(v_BNLH - old_BNLH, (0, 1), value=1.0)
        if factor_BS is not None:
            update_BNHE = update_BNHE * factor_BS[:, s, None, None, None]
        memory_BNHE, full_B = memory_BNHE + update_BNHE, torch.ones_like(full_B)
    if memories is not None:
        memories.append(memory_BNHE)
    return torch.stack(reads, 1), shortfall


def read(memory_BNHE: Tensor, phi_BNLH: Tensor, full_B: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """What features read from a memory, 0 from an empty one; and `under` of the rows that have one."""
    if not full_B.any():
        return torch.zeros_like(phi_BNLH), torch.zeros(())
    both_BNLE = phi_BNLH @ memory_BNHE
    below_BNL1 = both_BNLE[..., -1:]
    return both_BNLE[..., :-1] / below_BNL1.clamp_min(floor), under(floor, below_BNL1[full_B])


def under(floor: float, denominator: Tensor) -> Tensor:
    """Mean over denominators of the nats by which they lie under the floor; a zero counts as a thousandth of it."""
    return F.relu(math.log(floor) - (denominator + floor / 1000).log()).mean()
