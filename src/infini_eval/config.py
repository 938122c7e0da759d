"""Settings: what a checkpoint says about its model, and what a user asks of an evaluation. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Memory = Literal["on", "off", "ablate"]
MemoryQuery = Literal["rotary", "plain"]
MemoryDtype = Literal["float32", "model"]
GATE_ACTIVATIONS = ("hard_sigmoid", "orig_sigmoid", "orig_tanh", "tanh_abs")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelConfig:
    """The shape and the function of a model, as its config.yaml states it.

    `kind` is "infini_llama" (segments and gates) or "llama" (ordinary causal attention over the whole context).
    `segment_length` and `gate_activation` are None for "llama". `softmax_scale` is 1/sqrt(d), or 1/d under muP.
    """

    kind: Literal["infini_llama", "llama"]
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_interleaved: bool
    tie_word_embeddings: bool
    dtype: str
    softmax_scale: float
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    segment_length: int | None = None
    gate_activation: str | None = None
    memory: Memory = "on"
    memory_query: MemoryQuery = "rotary"
    tokenizer: str | None = None
    saved_dp: int = 1
    saved_tp: int = 1
    saved_pp: int = 1

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def has_segments(self) -> bool:
        return self.segment_length is not None

    @property
    def parameter_count(self) -> int:
        """Number of weights, counted from the shapes (tied embeddings once)."""
        d, heads, kv = self.head_dim, self.num_attention_heads, self.num_key_value_heads
        attention = (heads + 2 * kv) * d * self.hidden_size + heads * d * self.hidden_size
        gates = heads if self.has_segments else 0
        mlp = 3 * self.hidden_size * self.intermediate_size
        layer = attention + gates + mlp + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + self.hidden_size


@dataclass(frozen=True)
class ModelSettings:
    """What a user overrides about the model; None means "as the checkpoint says"."""

    dtype: str | None = None
    device: str | None = None
    memory: Memory | None = None
    memory_query: MemoryQuery | None = None
    memory_dtype: MemoryDtype = "float32"
    rope_interleaved: bool | None = None
    attn_implementation: str = "sdpa"  # the native engine has sdpa and flash_attn
    chunk_segments: int | None = None
    prefix_cache_gb: float = 1.0  # 10**9 bytes of states kept for shared prefixes; 0 reads every prompt whole
    compile: bool = False  # torch.compile for the steps whose shapes recur
    cuda_graphs: bool = False  # decoding replays one recorded step


@dataclass(frozen=True)
class Topology:
    """Sizes of the mesh axes; None means "choose" (DESIGN 7)."""

    dp: int | None = None
    tp: int | None = None
    pp: int | None = None


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: temperature 0 is greedy; top_k 0 and top_p 1 keep the whole distribution."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class RequestSettings:
    """How a served model is asked.

    base_url: None is the provider's own address. concurrency: requests in flight from one process. timeout_s: limit of
    one request; long prefills take minutes. attempts: tries of one request, the first included. replies: folder of the
    reply cache, None for <save_path>/replies, "off" for none. extra: a JSON object merged into each request.
    """

    base_url: str | None = None
    concurrency: int = 8
    timeout_s: float = 1800.0
    attempts: int = 6
    replies: str | None = None
    extra: str | None = None


@dataclass(frozen=True)
class LoadSettings:
    """How a Hugging Face model is loaded.

    device_map, offload_folder: as from_pretrained has them. max_memory: "80GiB" for every GPU, or "0=70GiB,cpu=200GiB".
    prefill_chunk: tokens of a prefill step, None for the backend's choice, 0 for the whole prompt at once.
    vllm_extra: a JSON object of further arguments of vLLM's own LLM class.
    """

    device_map: str | None = None
    max_memory: str | None = None
    offload_folder: str | None = None
    quantization: Literal["4bit", "8bit"] | None = None
    prefill_chunk: int | None = None
    trust_remote_code: bool = False
    vllm_extra: str | None = None


@dataclass(frozen=True)
class FakeSettings:
    """What the fake backend gets wrong: `horizon` in tokens between needle and end (None: remembers all), rates in 0..1.

    `seconds` is the time that one answer takes.
    """

    horizon: int | None = None
    near_miss_rate: float = 0.0
    failure_rate: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class BackendSettings:
    """Settings of the backends other than nanotron; each backend reads its own group.

    `chat_template`: "on" asks in the model's chat format, "off" sends the prompt as it is, "auto" does what the model
    has a template for.
    """

    chat_template: Literal["auto", "on", "off"] = "auto"
    requests: RequestSettings = RequestSettings()
    loading: LoadSettings = LoadSettings()
    fake: FakeSettings = FakeSettings()


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation: what is asked, of whom, and where the results go.

    `model_path` is what the backend understands: a checkpoint folder, a hub id, the name a server gives its model.
    `num_samples` is per cell of (context length, depth); None takes all rows. `num_shots` None and `num_digits` 0 or
    None mean "do not filter". `depths` and `context_length` filter the data set where given.
    """

    model_path: str
    save_path: str
    eval_dataset_path: str
    task: str = "passkey"
    backend: str = "nanotron"
    scorer: str = "exact_digits"
    num_shots: int | None = None
    num_digits: int | None = None
    num_samples: int | None = None
    depths: tuple[float, ...] | None = None
    context_length: int | None = None
    seed: int = 42
    max_new_tokens: int = 15
    batch_size: int | None = None
    tokenizer: str | None = None
    model: ModelSettings = ModelSettings()
    topology: Topology = Topology()
    sampling: Sampling = Sampling()
    backend_settings: BackendSettings = BackendSettings()
    results_file: str | None = None
    overwrite: bool = False
    failed_as_wrong: bool = False
    strict_data: bool = False
    log_prompts: bool = False
    quiet: bool = False
    early_stop: bool = True  # generation ends where no further token can change a score
    plan: bool = True  # refuse, before loading, what cannot fit
    task_options: tuple[tuple[str, str], ...] = ()  # names and values, as the task lists them
    context_window: int | None = None  # tokens that the model reads at most, answer included; None: as it says itself
