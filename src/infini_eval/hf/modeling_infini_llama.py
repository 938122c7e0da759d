"""Infini-Attention Llama for transformers: configuration, cache and model. This file needs torch and transformers only.

A sequence is cut into segments of L tokens, counted from its first. A layer attends within the segment, reads what earlier
segments left in a compressive memory, mixes both by a gate per head, and writes the segment into the memory when it is full
(Infini-attention, Munkhdalai et al. 2024, as nanotron trains it). The cache therefore holds a memory and one open segment,
whatever the length of the context.

What follows from that: segments are counted from the first token of a row, so rows are padded on the right or not at all;
a full segment cannot be taken back, so the cache cannot be cropped (no assisted generation); beams and batches are fine.

Legend: B batch, T tokens, S keys, D model width, N query heads, G kv heads, R = N / G, H head width, K whole segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import CacheLayerMixin, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaPreTrainedModel,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils import can_return_tuple

LAYER_TYPE = "infini_attention"
PREFILL_TOKENS = 4096  # of a long prompt that go through the layers at once, rounded to whole segments
CHOICES = {
    "gate_activation": ("hard_sigmoid", "orig_sigmoid", "orig_tanh", "tanh_abs"),
    "memory": ("on", "off", "ablate"),
    "memory_query": ("rotary", "plain"),
    "memory_dtype": ("float32", "model"),
}


@strict  # without it, the base class's list of validators stays, and with it its list of layer types
class InfiniLlamaConfig(LlamaConfig):  # type: ignore[misc]  # transformers is untyped here
    """A Llama's configuration with what Infini-Attention adds.

    segment_length: L, tokens of a segment; positions restart in each.
    gate_activation: from a balance factor u to the weight g of the memory: hard_sigmoid is clamp(0.2 u + 0.5, 0, 1).
    memory: on; off (local attention alone, not scaled by 1 - g); ablate (gates kept, the memory reads as zero).
    memory_query: which query reads the memory: rotary (after its rotation, as nanotron trains) or plain.
    memory_dtype: of the memory and the gates: float32, or the model's.
    softmax_scale: of local attention, 1 / sqrt(H) where None.
    """

    model_type = "infini_llama"
    base_model_tp_plan = None
    base_model_pp_plan = None

    segment_length: int = 2048
    gate_activation: str = "hard_sigmoid"
    memory: str = "on"
    memory_query: str = "rotary"
    memory_dtype: str = "float32"
    softmax_scale: float | None = None
    layer_types: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.layer_types = [LAYER_TYPE] * self.num_hidden_layers
        super().__post_init__(**kwargs)

    def validate_infini_attention(self) -> None:
        """What the attention below can compute."""
        if not isinstance(self.segment_length, int) or self.segment_length < 1:
            raise ValueError(f"segment_length is {self.segment_length!r}; valid: a whole number of at least 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; valid: {', '.join(choices)}")

    def validate_layer_type(self) -> None:
        """Every layer is of the one kind that this file defines, which transformers' own list does not have."""
        if self.layer_types != [LAYER_TYPE] * self.num_hidden_layers:
            raise ValueError(f"layer_types must be {LAYER_TYPE!r} for each of {self.num_hidden_layers} layers")


class InfiniAttentionCacheLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's state: the memory of full segments, M [B, G, H, H] and z [B, G, H], and the open segment's tokens.

    `DynamicCache(config=model.config)` makes one for each layer; it is the attention that calls `update` and `close`.
    """

    _layer_type = LAYER_TYPE
    is_compileable = False
    is_croppable = False
    is_sliding = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._clear()

    def _clear(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.raw_keys: torch.Tensor | None = None
        self.memory: torch.Tensor | None = None
        self.z: torch.Tensor | None = None
        self.seen_tokens = self.open_length = 0
        self.is_initialized = False

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, raw_keys: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens to the open segment, each [B, G, T, H]; returns its keys and values.

        raw_keys: the keys before rotation, with which the memory is written; None where none is kept.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = _joined(self.keys, key_states), _joined(self.values, value_states)
        self.keys, self.values = keys, values
        if raw_keys is not None:
            self.raw_keys = _joined(self.raw_keys, raw_keys)
        self.open_length += key_states.shape[2]
        self.seen_tokens += key_states.shape[2]
        return keys, values

    def close(self, memory_dtype: torch.dtype) -> None:
        """The open segment is full: write it into the memory, where one is kept, and start a new one."""
        if self.raw_keys is not None and self.values is not None:
            self.write(self.raw_keys, self.values, memory_dtype)
        self.keys = self.values = self.raw_keys = None
        self.open_length = 0

    def write(self, raw_keys: torch.Tensor, values: torch.Tensor, dtype: torch.dtype) -> None:
        """Write one segment [B, G, L, H]: M += sigma(K)^T (V - what K reads), z += sum of sigma(K); the first one plainly."""
        sigma, target = feature_map(raw_keys.to(dtype)), values.to(dtype)
        if self.memory is None or self.z is None:
            self.memory, self.z = sigma.transpose(2, 3) @ target, sigma.sum(dim=2)
            return
        target = target - self.read(sigma)
        self.memory = self.memory + sigma.transpose(2, 3) @ target
        self.z = self.z + sigma.sum(dim=2)

    def read(self, sigma: torch.Tensor) -> torch.Tensor:
        """sigma M / (sigma . z) for features [B, G, T, H]; no epsilon, as in training."""
        assert self.memory is not None and self.z is not None
        return (sigma @ self.memory) / (sigma @ self.z[..., None])

    def count_full(self, tokens: int) -> None:
        """Note tokens that went into the memory without having been in the open segment."""
        self.seen_tokens += tokens

    def get_seq_length(self) -> int:
        return self.seen_tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen_tokens + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self._clear()

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse, but for the call that removes nothing."""
        if tokens_to_remove:
            raise ValueError(
                "an Infini-Attention cache cannot be cropped: full segments are merged into its memory. Assisted and prompt "
                "lookup generation are not possible with this model"
            )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._each_row(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._each_row(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._each_row(lambda x: x[indices.to(x.device)])

    def offload(self) -> None:
        """The state is small and stays on its device."""

    def prefetch(self) -> None:
        """The state is small and stays on its device."""

    def _each_row(self, change: Any) -> None:
        for name in ("keys", "values", "raw_keys", "memory", "z"):
            tensor = getattr(self, name)
            if tensor is not None:
                setattr(self, name, change(tensor))


def _joined(old: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
    # a clone, not a view: it would keep the projections of a whole prompt alive
    return new.clone() if old is None else torch.cat((old, new), dim=2)


def feature_map(x: torch.Tensor) -> torch.Tensor:
    """sigma(u) = elu(u) + 1."""
    return F.elu(x) + 1


def gate(balance_factors: torch.Tensor, activation: str) -> torch.Tensor:
    """The weight g of what the memory returns, by head."""
    if activation == "hard_sigmoid":
        return (0.2 * balance_factors + 0.5).clamp(0, 1)
    if activation == "orig_sigmoid":
        return balance_factors.sigmoid()
    tanh = balance_factors.tanh()
    return tanh.abs() if activation == "tanh_abs" else tanh


class _Heads(NamedTuple):
    """A step's projections, each [B, N or G, T, H]: rotated q and k, v, the query that reads the memory, k as it is written."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    q_read: torch.Tensor
    k_raw: torch.Tensor

    def part(self, start: int, end: int) -> _Heads:
        return _Heads(*(x[:, :, start:end] for x in self))


class InfiniLlamaAttention(nn.Module):
    """Local attention of a segment, mixed with what the compressive memory returns: O = g A + (1 - g) O_local."""

    is_causal = True

    def __init__(self, config: InfiniLlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.head_dim = config, layer_idx, config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.softmax_scale or self.head_dim**-0.5
        hidden, width = config.hidden_size, config.num_attention_heads * self.head_dim
        kv_width = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(hidden, width, bias=False)
        self.k_proj = nn.Linear(hidden, kv_width, bias=False)
        self.v_proj = nn.Linear(hidden, kv_width, bias=False)
        self.o_proj = nn.Linear(width, hidden, bias=False)
        self.balance_factors = nn.Parameter(torch.zeros(config.num_attention_heads))

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        infini_state: InfiniAttentionCacheLayer | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """[B, T, D] -> [B, T, D]; adds the tokens to the state. position_embeddings: of their places in their segments."""
        shape = (*hidden_states.shape[:2], -1, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (project(hidden_states).view(shape).transpose(1, 2) for project in projections)
        q_rotated, k_rotated = apply_rotary_pos_emb(q, k, *position_embeddings)
        q_read = q_rotated if self.config.memory_query == "rotary" else q
        state = InfiniAttentionCacheLayer() if infini_state is None else infini_state
        parts = list(self._parts(_Heads(q_rotated, k_rotated, v, q_read, k), state))
        mixed_BNTH = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return self.o_proj(mixed_BNTH.transpose(1, 2).flatten(2)), None

    def _parts(self, heads: _Heads, state: InfiniAttentionCacheLayer) -> Iterator[torch.Tensor]:
        """The tokens in order: what completes the open segment, whole segments at once, what opens a new one."""
        length, tokens, start = self.config.segment_length, heads.q.shape[2], 0
        while start < tokens:
            room = length - state.open_length
            if room == length and tokens - start >= length:
                end = start + (tokens - start) // length * length
                yield self._whole_segments(heads.part(start, end), state)
            else:
                end = min(tokens, start + room)
                yield self._open_segment(heads.part(start, end), state)
            start = end

    def _whole_segments(self, heads: _Heads, state: InfiniAttentionCacheLayer) -> torch.Tensor:
        length, batch = self.config.segment_length, heads.q.shape[0]
        each = [x.unflatten(2, (-1, length)) for x in heads]  # [B, heads, K, L, H]
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in each[:3])
        local = self._local(q, k, v).unflatten(0, (batch, -1))  # [B, K, N, L, H]
        segments = _Heads(*each)
        outputs = []
        for index in range(local.shape[1]):
            outputs.append(self._mixed(local[:, index], segments.q_read[:, :, index], state))
            if self.config.memory == "on":
                state.write(segments.k_raw[:, :, index], segments.v[:, :, index], self._memory_dtype(heads.q))
        state.count_full(heads.q.shape[2])
        return torch.cat(outputs, dim=2)

    def _open_segment(self, heads: _Heads, state: InfiniAttentionCacheLayer) -> torch.Tensor:
        raw_keys = heads.k_raw if self.config.memory == "on" else None
        keys, values = state.update(heads.k, heads.v, raw_keys=raw_keys)
        mixed = self._mixed(self._local(heads.q, keys, values), heads.q_read, state)
        if state.open_length == self.config.segment_length:
            state.close(self._memory_dtype(heads.q))
        return mixed

    def _local(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Causal attention of T queries, the last T of S keys; [B, N, T, H]."""
        tokens, seen = q.shape[2], keys.shape[2]
        implementation = self.config._attn_implementation
        mask = None
        if tokens > 1 and (seen > tokens or implementation == "eager"):
            visible = torch.ones(tokens, seen, dtype=torch.bool, device=q.device).tril(seen - tokens)
            mask = torch.zeros_like(visible, dtype=q.dtype).masked_fill(~visible, torch.finfo(q.dtype).min)[None, None]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        out_BTNH: torch.Tensor = attend(self, q, keys, values, mask, dropout=0.0, scaling=self.scaling)[0]
        return out_BTNH.transpose(1, 2)

    def _mixed(self, local: torch.Tensor, q_read: torch.Tensor, state: InfiniAttentionCacheLayer) -> torch.Tensor:
        """Add what the memory returns to local attention [B, N, T, H]; the gate scales the first segment too."""
        if self.config.memory == "off":
            return local
        dtype = self._memory_dtype(local)
        g_N11 = gate(self.balance_factors.to(dtype), self.config.gate_activation)[:, None, None]
        mixed = (1 - g_N11) * local
        if state.memory is not None:
            groups = self.num_key_value_groups
            sigma = feature_map(q_read.to(dtype)).unflatten(1, (-1, groups)).flatten(2, 3)  # [B, G, R * T, H]
            mixed = mixed + g_N11 * state.read(sigma).unflatten(2, (groups, -1)).flatten(1, 2)
        return mixed.to(local.dtype)

    def _memory_dtype(self, x: torch.Tensor) -> torch.dtype:
        return x.dtype if self.config.memory_dtype == "model" else torch.float32


class InfiniLlamaDecoderLayer(LlamaDecoderLayer):  # type: ignore[misc]
    """A Llama's layer with Infini-Attention."""

    def __init__(self, config: InfiniLlamaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.self_attn = InfiniLlamaAttention(config, layer_idx)


class InfiniLlamaPreTrainedModel(LlamaPreTrainedModel):  # type: ignore[misc]
    """What the models below share."""

    config_class = InfiniLlamaConfig
    config: InfiniLlamaConfig
    _no_split_modules = ("InfiniLlamaDecoderLayer",)
    _supports_flash_attn = False
    _supports_flex_attn = False
    _can_compile_fullgraph = False
    _supports_attention_backend = False
    _can_record_outputs: dict[str, Any] = {}  # noqa: RUF012  # forward records hidden states itself

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, InfiniLlamaAttention):
            init.zeros_(module.balance_factors)


class InfiniLlamaModel(InfiniLlamaPreTrainedModel):
    """The decoder. A long prompt passes in pieces of whole segments, so that only its hidden states grow with it."""

    def __init__(self, config: InfiniLlamaConfig) -> None:
        super().__init__(config)
        self.padding_idx, self.vocab_size = config.pad_token_id, config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        layers = [InfiniLlamaDecoderLayer(config, index) for index in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        last_tokens: int = 0,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states [B, T, D] after the final norm.

        last_tokens: how many of them are wanted, from the end; 0 for all.

        Raises:
            ValueError: padding before a token, positions that skip, a cache of another kind, or one beside gradient
                checkpointing.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        given: Any = input_ids if inputs_embeds is None else inputs_embeds
        recorded: list[torch.Tensor] | None = [] if output_hidden_states else None
        remembers = not (self.gradient_checkpointing and self.training)
        if past_key_values is not None and not remembers:
            raise ValueError(
                "gradient checkpointing computes each layer twice, a cache would be written twice: leave it out"
            )
        use_cache = remembers and (self.config.use_cache if use_cache is None else use_cache)
        pieces = recorded is None and not torch.is_grad_enabled()
        cache = past_key_values
        if cache is None and (use_cache or pieces):
            cache = DynamicCache(config=self.config)
        states = [None] * len(self.layers) if cache is None else _states(cache, len(self.layers))
        past = 0 if states[0] is None else states[0].get_seq_length()
        refuse_padding(attention_mask, past)
        refuse_other_positions(position_ids, past)
        hidden: list[torch.Tensor] = []
        for piece in _pieces(given, past, self.config.segment_length) if pieces else [given]:
            hidden = [*hidden, self._run(piece, states, recorded)]
            while last_tokens and sum(one.shape[1] for one in hidden[1:]) >= last_tokens:
                hidden = hidden[1:]
        x = hidden[0] if len(hidden) == 1 else torch.cat(hidden, dim=1)
        return BaseModelOutputWithPast(
            last_hidden_state=x[:, -last_tokens:],
            past_key_values=cache if use_cache or past_key_values is not None else None,
            hidden_states=None if recorded is None else (*recorded, x),
        )

    def _run(self, given: torch.Tensor, states: list[Any], recorded: list[torch.Tensor] | None) -> torch.Tensor:
        """Token ids [B, T], or their embeddings [B, T, D], through all layers."""
        x = given if given.dim() == 3 else self.embed_tokens(given)
        start = 0 if states[0] is None else states[0].open_length
        positions = (start + torch.arange(x.shape[1], device=x.device)) % self.config.segment_length
        cos_sin = self.rotary_emb(x, position_ids=positions[None])
        for layer, state in zip(self.layers, states):
            if recorded is not None:
                recorded.append(x)
            x = layer(x, position_embeddings=cos_sin, infini_state=state)
        normed: torch.Tensor = self.norm(x)
        return normed


class InfiniLlamaForCausalLM(InfiniLlamaPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The decoder with its head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: InfiniLlamaConfig) -> None:
        super().__init__(config)
        self.model = InfiniLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, T, V], or of the last `logits_to_keep` tokens (an index tensor chooses them)."""
        last = logits_to_keep if isinstance(logits_to_keep, int) else 0
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            last_tokens=last,
        )
        hidden = outputs.last_hidden_state
        logits = self.lm_head(hidden if isinstance(logits_to_keep, int) else hidden[:, logits_to_keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values, hidden_states=outputs.hidden_states
        )

    def _prepare_static_cache(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(
            "cache_implementation='static': this model's cache does not grow with the context; leave cache_implementation out"
        )


def _states(cache: Any, layers: int) -> list[Any]:
    """The layers of a cache, made for this model."""
    states = list(getattr(cache, "layers", ()))
    if len(states) != layers or any(getattr(state, "_layer_type", None) != LAYER_TYPE for state in states):
        raise ValueError(
            f"past_key_values is a {type(cache).__name__} of another model; valid: DynamicCache(config=model.config), or None"
        )
    return states


def _pieces(given: torch.Tensor, past: int, length: int) -> Iterator[torch.Tensor]:
    """The tokens [B, T, …] in pieces of about PREFILL_TOKENS that end at the borders of segments."""
    step = max(1, PREFILL_TOKENS // length) * length
    start, tokens = 0, given.shape[1]
    while start < tokens:
        end = min(tokens, start + step - (past + start) % step)
        yield given[:, start:end]
        start = end


def refuse_padding(attention_mask: torch.Tensor | None, past: int) -> None:
    """ValueError where a row has a token behind padding: segments are counted from a row's first token."""
    if attention_mask is None:
        return
    if attention_mask.dim() != 2:
        raise ValueError(
            f"attention_mask has {attention_mask.dim()} dims: this model makes its own masks of segments; valid: [batch, "
            "tokens], or None"
        )
    mask = attention_mask.bool()
    if bool(mask.all()):
        return
    if past or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueError(
            "a token stands behind padding, but segments are counted from a row's first token: with left padding every "
            "segment and position would be another. Generate for rows of equal length together, or one by one (batch size 1); "
            "without generation, pad on the right"
        )


def refuse_other_positions(position_ids: torch.Tensor | None, past: int) -> None:
    """ValueError where positions are not those of consecutive tokens: packed sequences would share a memory."""
    if position_ids is None:
        return
    expected = torch.arange(past, past + position_ids.shape[-1], device=position_ids.device)
    if not bool((position_ids == expected).all()):
        raise ValueError(
            f"position_ids are not {past}, {past + 1}, …: rows that start elsewhere (left padding, packed sequences) are not "
            "computed by this model; leave position_ids out"
        )
