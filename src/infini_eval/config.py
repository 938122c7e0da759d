"""Settings: what a checkpoint says about its model, and what a user asks of an evaluation. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar

from infini_eval.errors import ConfigError
from infini_eval.options import (
    column_pairs,
    count,
    depth_list,
    gigabytes,
    names_list,
    option,
    positive_int,
    probability,
    process_count,
    rate,
    seconds,
    seconds_or_zero,
    seed_number,
    temperature,
    thread_count,
    token_count,
    token_count_or_zero,
    try_count,
)

Memory = Literal["on", "off", "ablate"]
MemoryQuery = Literal["rotary", "plain"]
MemoryDtype = Literal["float32", "model"]
FeatureMap = Literal["reference", "stable"]
LogFormat = Literal["line", "guide"]
GATE_ACTIVATIONS = ("hard_sigmoid", "orig_sigmoid", "orig_tanh", "tanh_abs")
GATE_ALIASES = {"tanh": "orig_tanh", "sigmoid": "orig_sigmoid"}  # as the evaluation guide spells two of them
DTYPES = ("float32", "bfloat16", "float16")


WINDOW_BLOCK = (256, 1024)  # least and most queries that are computed together in a layer with a sliding window


def window_block(size: int) -> int:
    """Choose how many queries look through a window of `size` keys together: each block reads `size` - 1 keys before it."""
    least, most = WINDOW_BLOCK
    return max(least, min(size, most))


@dataclass(frozen=True)
class ModelConfig:
    """The shape and the function of a model, as its config.yaml states it.

    `kind` is "infini_llama" (segments and gates), or "llama" or "qwen2" (dense, causal attention over the whole context).
    `segment_length` and `gate_activation` are None but for "infini_llama". `softmax_scale` is 1/sqrt(d), or 1/d under muP.
    Of "qwen2" only: `attention_bias` (of q, k and v); `no_rope_layer`: every n-th layer has neither rotary embedding nor
    window; `sliding_window`: keys that a query of the other layers sees, its own included; `rope_interpolation`: what
    positions are divided by.
    """

    kind: Literal["infini_llama", "llama", "qwen2"]
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
    attention_bias: bool = False
    no_rope_layer: int | None = None
    sliding_window: int | None = None
    rope_interpolation: float = 1.0
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
    def family(self) -> str:
        """The architecture's name, for people."""
        return "Qwen2" if self.kind == "qwen2" else "Llama"

    @property
    def has_segments(self) -> bool:
        return self.segment_length is not None

    def has_rotary(self, layer: int) -> bool:
        """Whether the layer of this number (from 0) rotates its queries and keys."""
        return self.no_rope_layer is None or (layer + 1) % self.no_rope_layer != 0

    def window_of(self, layer: int) -> int | None:
        """Keys that a query of the layer sees, its own included; None for all before it."""
        return self.sliding_window if self.has_rotary(layer) else None

    @property
    def parameter_count(self) -> int:
        """Number of weights, counted from the shapes (tied embeddings once)."""
        d, heads, kv = self.head_dim, self.num_attention_heads, self.num_key_value_heads
        attention = (heads + 2 * kv) * d * self.hidden_size + heads * d * self.hidden_size
        gates = heads if self.has_segments else 0
        mlp = 3 * self.hidden_size * self.intermediate_size
        biases = (heads + 2 * kv) * d if self.attention_bias else 0
        layer = attention + biases + gates + mlp + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + self.hidden_size


def _axis_help(parallel: str) -> str:
    return f"{parallel}-parallel size (default: chosen from the checkpoint and the world size)"


@dataclass(frozen=True)
class WeightSettings:
    """How the weights of a model that is computed here are held; None means "as the checkpoint says"."""

    TITLE: ClassVar[str] = "weights"

    dtype: str | None = option(None, "dtype of weights and activations (default: the checkpoint's)", choices=DTYPES)
    device: str | None = option(None, "cpu or cuda (default: cuda when present)", metavar="DEVICE")
    attn_implementation: str = option(
        "sdpa", "attention kernels (default: %(default)s)", choices=("sdpa", "flash_attn")
    )


@dataclass(frozen=True)
class ModelSettings(WeightSettings):
    """What a user overrides about a nanotron checkpoint; None means "as the checkpoint says"."""

    TITLE: ClassVar[str] = "nanotron"

    memory: Memory | None = option(
        None,
        "compressive memory: off drops the gate too (turn_on_memory: false), ablate keeps it and reads zero "
        "(default: as the checkpoint says)",
        choices=("on", "off", "ablate"),
    )
    memory_query: MemoryQuery | None = option(
        None,
        "the query that reads the memory (default: as the checkpoint says, else rotary)",
        choices=("rotary", "plain"),
    )
    memory_dtype: MemoryDtype = option(
        "float32", "dtype of the memory state (default: %(default)s)", choices=("float32", "model")
    )
    feature_map: FeatureMap = option(
        "reference",
        "sigma of queries and keys at the memory: reference is elu(u) + 1 as trained, which rounding takes to 0 for very "
        "negative u; stable is the same function without that: u + 1 above 0, exp(u) below (default: %(default)s)",
        choices=("reference", "stable"),
    )
    rope_interleaved: bool | None = option(
        None,
        "override how rotary pairs are laid out (default: as the checkpoint says)",
        values={"yes": True, "no": False},
    )
    chunk_segments: int | None = option(
        None, "whole segments computed in one step (default: chosen)", read=positive_int, metavar="K"
    )
    prefix_cache_gb: float = option(
        1.0,
        "samples of one haystack are read once up to where they part; GB (10**9 bytes) bounds, on each rank, the states "
        "that later batches start from; 0 reads every prompt whole (default: %(default)g; models without segments "
        "always do)",
        read=gigabytes,
        metavar="GB",
    )
    compile: bool = option(
        False,
        "torch.compile for chunks of whole segments and new tokens (nanotron): minutes of compiling, then a gain on "
        "small models",
    )
    cuda_graphs: bool = option(
        False, "new tokens replay one recorded CUDA graph for each batch size (nanotron, --tp 1 --pp 1)"
    )


@dataclass(frozen=True)
class Topology:
    """Sizes of the mesh axes; None means "choose" (distributed/mesh.py says how)."""

    dp: int | None = option(None, _axis_help("data"), read=process_count, metavar="N")
    tp: int | None = option(None, _axis_help("tensor"), read=process_count, metavar="N")
    pp: int | None = option(None, _axis_help("pipeline"), read=process_count, metavar="N")


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: temperature 0 is greedy; top_k 0 and top_p 1 keep the whole distribution."""

    temperature: float = option(0.0, "0 is greedy (default: %(default)s)", read=temperature)
    top_k: int = option(0, "draw from the k likeliest tokens; 0 keeps all (default: %(default)s)", read=count)
    top_p: float = option(
        1.0, "draw from the smallest set with this probability (default: %(default)s)", read=probability
    )
    seed: int = 0


@dataclass(frozen=True)
class PromptSettings:
    """How a prompt is put to a model that may have a chat format."""

    TITLE: ClassVar[str] = "prompts"

    chat_template: Literal["auto", "on", "off"] = option(
        "auto",
        "ask in the model's chat format, or send the prompt as it is (default: auto, on where the model has a template)",
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True)
class RequestSettings:
    """How a served model is asked.

    base_url: None is the provider's own address. concurrency: requests in flight from one process. timeout_s: limit of
    one request; long prefills take minutes. attempts: tries of one request, the first included. replies: folder of the
    reply cache, None for <save_path>/replies, "off" for none. extra: a JSON object merged into each request.
    """

    TITLE: ClassVar[str] = "servers"

    base_url: str | None = option(
        None,
        "the server's address, as http://127.0.0.1:8000/v1 (default: OPENAI_BASE_URL, else the provider's own)",
        metavar="URL",
    )
    concurrency: int = option(
        8, "requests in flight from each process (default: %(default)s)", read=thread_count, metavar="N"
    )
    timeout_s: float = option(
        1800.0,
        "limit of one request; prefilling a long prompt takes minutes (default: %(default)s)",
        flag="--request-timeout",
        read=seconds,
        metavar="SECONDS",
    )
    attempts: int = option(
        6, "tries of a request on 429, 5xx and lost connections (default: %(default)s)", read=try_count, metavar="N"
    )
    replies: str | None = option(
        None,
        "where replies are kept, or off (default: replies/ in the run folder)",
        flag="--reply-cache",
        metavar="DIR",
    )
    extra: str | None = option(
        None,
        'merged into every request, as {"reasoning_effort": "low"}',
        flag="--request-extra",
        metavar="JSON",
    )


@dataclass(frozen=True)
class LoadSettings:
    """How a Hugging Face model is loaded.

    device_map, offload_folder: as from_pretrained has them. max_memory: "80GiB" for every GPU, or "0=70GiB,cpu=200GiB".
    prefill_chunk: tokens of a prefill step, None for the backend's choice, 0 for the whole prompt at once.
    """

    TITLE: ClassVar[str] = "Hugging Face models"

    device_map: str | None = option(
        None,
        "auto, balanced, sequential: one process spreads the model over its devices; or FILE.json with the device of "
        'each module: {"model.embed_tokens": 0, "model.layers.0": "cpu", ...}',
        metavar="MAP",
    )
    max_memory: str | None = option(
        None,
        "80GiB for every GPU, or 0=70GiB,1=70GiB,cpu=200GiB; what does not fit is offloaded",
        metavar="SIZES",
    )
    offload_folder: str | None = option(None, "where weights go that fit into no memory", metavar="DIR")
    quantization: Literal["4bit", "8bit"] | None = option(
        None, "bitsandbytes; refused where it would leave most of the model as it is", choices=("4bit", "8bit")
    )
    prefill_chunk: int | None = option(
        None,
        "tokens of a prefill step; 0 reads the whole prompt at once (default: 4096)",
        read=token_count_or_zero,
        metavar="N",
    )
    trust_remote_code: bool = option(False, "run the code that comes with the model: read it first")


@dataclass(frozen=True)
class VllmSettings:
    """What only vLLM's own LLM class takes, as a JSON object."""

    TITLE: ClassVar[str] = "vllm"

    extra: str | None = option(
        None,
        'further arguments of vLLM\'s LLM, as {"distributed_executor_backend": "ray", "max_model_len": 131072}',
        flag="--vllm-extra",
        metavar="JSON",
    )


@dataclass(frozen=True)
class FakeSettings:
    """What the fake backend gets wrong: `horizon` in tokens between needle and end (None: remembers all), rates in 0..1.

    `seconds` is the time that one answer takes.
    """

    TITLE: ClassVar[str] = "fake"

    horizon: int | None = option(
        None,
        "forgets a needle that lies more than N tokens back",
        flag="--fake-horizon",
        read=token_count,
        metavar="N",
    )
    near_miss_rate: float = option(
        0.0,
        "share of answers with one wrong character (default: %(default)s)",
        flag="--fake-near-miss-rate",
        read=rate,
        metavar="RATE",
    )
    failure_rate: float = option(
        0.0,
        "share of requests that fail (default: %(default)s)",
        flag="--fake-failure-rate",
        read=rate,
        metavar="RATE",
    )
    seconds: float = option(
        0.0,
        "time that an answer takes (default: %(default)s)",
        flag="--fake-seconds",
        read=seconds_or_zero,
        metavar="SECONDS",
    )


Settings = TypeVar("Settings")


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation: what is asked, of whom, and where the results go.

    `model_path` is what the backend understands: a checkpoint folder, a hub id, the name a server gives its model.
    `num_samples` is per cell of (context length, depth); None takes all rows. `num_shots` None and `num_digits` 0 or
    None mean "do not filter". `depths` and `context_length` filter the data set where given. `backend_settings` holds
    settings objects of the backend's own, each of the classes that it declares; `settings` reads them.
    """

    model_path: str
    save_path: str
    eval_dataset_path: str
    task: str = "passkey"
    backend: str = "nanotron"
    max_new_tokens: int = option(
        15, "tokens of an answer at most (default: %(default)s)", read=positive_int, metavar="N", section="run"
    )
    # generation ends where no further token can change a score
    early_stop: bool = option(
        True,
        "go on to --max-new-tokens where no further token can change a score (nanotron and transformers stop there)",
        section="run",
    )
    batch_size: int | None = option(
        None,
        "samples computed together (default: by their length, no more than fit into memory)",
        flag="--batch_size",
        read=positive_int,
        metavar="N",
        section="run",
    )
    scorer: str = option(
        "exact_digits",
        "what counts as correct: exact_digits (the first number is the answer), chat_digits (as chat models write "
        "numbers) or contains; all are recorded (default: %(default)s)",
        metavar="NAME",
        section="run",
    )
    tokenizer: str | None = option(
        None,
        "folder or hub id (default: the configuration's, or beside the checkpoint)",
        metavar="DIR",
        section="run",
    )
    results_file: str | None = option(
        None,
        "also write the JSON summary that older scripts read",
        flag="--results_file",
        metavar="FILE",
        section="run",
    )
    report_to: tuple[str, ...] = option(
        (),
        "afterwards also: csv, parquet, lm-eval, inspect, tensorboard (into the run folder), mlflow, wandb (where their "
        "environment says); several with commas",
        read=names_list,
        metavar="NAMES",
        section="run",
    )
    overwrite: bool = option(False, "discard a run that is already in the folder", section="run")
    failed_as_wrong: bool = option(
        False,
        "count failed samples as wrong (default: neither right nor wrong; verdicts hold for either)",
        section="run",
    )
    log_format: LogFormat = option(
        "line",
        "line: one line a sample (right or wrong, depth, length, score, seconds, id); guide: input, generation, and "
        "Success or Failure, as the evaluation guide prints them (default: %(default)s)",
        choices=("line", "guide"),
        section="run",
    )
    verbose: bool = option(
        False, "below each sample's line the text around the needle, and the answer", alias="-v", section="run"
    )
    log_prompts: bool = option(False, "the same with whole prompts", section="run")
    quiet: bool = option(False, "no log lines for single samples", section="run")
    progress_every: float = option(
        30.0,
        "seconds between lines of progress where there is no terminal (default: %(default)g)",
        read=seconds,
        metavar="SECONDS",
        section="run",
    )
    # refuse, before loading, what cannot fit
    plan: bool = option(True, "load the model even where the memory plan says that it cannot fit", section="run")
    num_shots: int | None = option(
        None,
        "only rows with N worked examples (default: all rows)",
        flag="--num_shots",
        read=count,
        metavar="N",
        section="data",
    )
    num_digits: int | None = option(
        None,
        "only rows with N-digit keys; 0 takes all (default: all)",
        flag="--num_digits",
        read=count,
        metavar="N",
        section="data",
    )
    context_length: int | None = option(
        None,
        "only rows labelled N tokens (128k = 131,072)",
        flag="--context_length",
        read=token_count,
        metavar="N",
        section="data",
    )
    depths: tuple[float, ...] | None = option(
        None, "only these depths: 0,50,100 or 0:100:5", read=depth_list, metavar="LIST", section="data"
    )
    num_samples: int | None = option(
        None,
        "samples of each depth and length, drawn with --seed (default: all)",
        flag="--num_samples",
        read=positive_int,
        metavar="N",
        section="data",
    )
    seed: int = option(
        42, "draws the samples, and seeds sampling (default: %(default)s)", read=seed_number, section="data"
    )
    preprocess: str | None = option(
        None,
        "a function of yours that changes each prompt before it is asked, as MODULE:FUNCTION or FILE.py:FUNCTION; it gets "
        "a Sample and returns a prompt",
        metavar="WHAT",
        section="data",
    )
    strict_data: bool = option(False, "defects of the data set are errors, not warnings", section="data")
    columns: tuple[tuple[str, str], ...] = option(
        (),
        "our columns and the data's: prompt=question,answer=target; prompt=context+question joins two (default: columns of "
        "usual names, which is said)",
        read=column_pairs,
        metavar="MAP",
        section="data",
    )
    split: str | None = option(
        None,
        "the split to take, of data that tell splits apart (default: train, or all there is)",
        metavar="NAME",
        section="data",
    )
    model: ModelSettings = ModelSettings()
    topology: Topology = Topology()
    sampling: Sampling = Sampling()
    backend_settings: tuple[Any, ...] = ()
    task_options: tuple[tuple[str, str], ...] = ()  # names and values, as the task lists them
    context_window: int | None = None  # tokens that the model reads at most, answer included; None: as it says itself

    def settings(self, kind: type[Settings]) -> Settings:
        """The settings of that class, its defaults where none were given."""
        return next((one for one in self.backend_settings if isinstance(one, kind)), None) or kind()

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object, for another process; no key of a service stands in it."""
        own = {type(one).__name__: asdict(one) for one in self.backend_settings}
        return asdict(self) | {"backend_settings": own}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], kinds: Iterable[type] = ()) -> EvalConfig:
        """What `to_json` wrote.

        Args:
            kinds: the settings classes of the backend, as its face lists them.

        Raises:
            ConfigError: a field or a settings class that is not known.
        """
        parts: dict[str, Any] = {"model": ModelSettings, "topology": Topology, "sampling": Sampling}
        given = dict(found) | {name: _settings_of(kind, found[name]) for name, kind in parts.items() if name in found}
        by_name = {kind.__name__: kind for kind in kinds}
        own = given.pop("backend_settings", {})
        if unknown := own.keys() - by_name.keys():
            raise ConfigError(
                f"backend settings {sorted(unknown)}", valid=", ".join(by_name) or "none for this backend"
            )
        return _settings_of(cls, given | {"backend_settings": [_settings_of(by_name[name], own[name]) for name in own]})


@dataclass(frozen=True)
class JudgeConfig:
    """Who judges which answers: `source` is a run folder of aa_lcr or a JSON file of answers.

    `judge` says who is asked and how; where its verdicts lie follows from the source. `protocol` "auto" is the one of the
    answers' data, `notes` a file of grading notes, `name` the folder of the verdicts (default: protocol, backend, model).
    """

    source: str
    judge: EvalConfig
    protocol: str = "auto"
    notes: str = ""
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object."""
        return asdict(self) | {"judge": self.judge.to_json()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], kinds: Iterable[type] = ()) -> JudgeConfig:
        """What `to_json` wrote; `kinds` as `EvalConfig.from_json` has them."""
        return _settings_of(cls, dict(found) | {"judge": EvalConfig.from_json(found["judge"], kinds)})


def _settings_of(kind: type[Settings], found: Mapping[str, Any]) -> Settings:
    """Settings from a JSON object of their fields, whose lists are tuples here."""
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in found if name not in known]:
        raise ConfigError(f"{kind.__name__} has no field {unknown[0]!r}", valid=", ".join(known))
    return kind(**{name: _with_tuples(value) for name, value in found.items()})


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value
