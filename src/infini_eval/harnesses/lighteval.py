"""Hugging Face's lighteval: a custom model, named by a file that imports `InfiniLightevalModel` from here.

Written against lighteval's public classes (`LightevalModel`, `ModelResponse`), version 0.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from lighteval.models.abstract_model import LightevalModel
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.prompt_manager import PromptManager
from lighteval.utils.cache_management import SampleCache
from transformers import PreTrainedTokenizerFast

from infini_eval.errors import ConfigError
from infini_eval.harnesses.opened import open_model

GENERATION_SIZE = 256  # new tokens, where a task names no number


class InfiniLightevalModel(LightevalModel):  # type: ignore[misc]
    """A nanotron checkpoint in lighteval, computed by the native engine.

    The model's name is the checkpoint, and after a question mark its arguments: `checkpoints/infini-demo?memory=ablate`;
    `tokenizer`, `device`, and the settings by the names of their flags, joined by `&`.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        checkpoint, _, given = config.model_name.partition("?")
        arguments: dict[str, Any] = dict(parse_qsl(given, strict_parsing=bool(given)))
        tokenizer, device = arguments.pop("tokenizer", None), arguments.pop("device", None)
        self.opened = open_model(checkpoint, tokenizer, device, arguments)
        self.model = self.opened.model
        self._tokenizer = _for_transformers(self.model.tokenizer)
        self.prompt_manager = PromptManager(self.model.chat_template is not None, self._tokenizer, config.system_prompt)
        self._cache = SampleCache(config)  # lighteval registers its tasks there; nothing is read from it

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The checkpoint's tokenizer as transformers has it."""
        return self._tokenizer

    @property
    def add_special_tokens(self) -> bool:
        """Whether the tokenizer adds its special tokens: a chat template writes them itself."""
        return self.model.chat_template is None

    @property
    def max_length(self) -> int:
        """The context length that the checkpoint declares."""
        return self.model.max_length

    def cleanup(self) -> None:
        """Part from the other processes."""
        self.opened.close()

    def greedy_until(self, docs: list[Any]) -> list[ModelResponse]:
        """Greedy answers, each up to its stop strings."""
        several = next((doc for doc in docs if doc.num_samples > 1), None)
        if several is not None:
            raise ConfigError(
                f"{several.task_name} wants {several.num_samples} samples an answer; greedy ones are alike"
            )
        prompts = [self._encoded(self.prompt_manager.prepare_prompt(doc)) for doc in docs]
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, doc in enumerate(docs):
            groups.setdefault(tuple(one for one in doc.stop_sequences or () if one), []).append(number)
        responses: list[Any] = [None] * len(docs)
        for stop, numbers in groups.items():
            limits = [docs[number].generation_size or GENERATION_SIZE for number in numbers]
            answers = self._answers([prompts[number] for number in numbers], limits, stop)
            for number, (text, tokens) in zip(numbers, answers, strict=True):
                responses[number] = ModelResponse(text=[text], input_tokens=prompts[number], output_tokens=[tokens])
        return responses

    def loglikelihood(self, docs: list[Any]) -> list[ModelResponse]:
        """The log-likelihoods of each question's choices."""
        pairs = [self.tok_encode_pair(self.prompt_manager.prepare_prompt(doc), doc.choices) for doc in docs]
        rows = [
            [*context, *tokens]
            for contexts, choices in pairs
            for context, tokens in zip(contexts, choices, strict=True)
        ]
        scored = [len(tokens) for _, choices in pairs for tokens in choices]
        kin = [number for number, (_, choices) in enumerate(pairs) for _ in choices]
        found = iter(self.opened.scores(rows, scored, kin))
        responses = []
        for contexts, choices in pairs:
            answers = [next(found) for _ in choices]
            responses.append(
                ModelResponse(
                    logprobs=[logprob for logprob, _ in answers],
                    argmax_logits_eq_gold=[greedy for _, greedy in answers],
                    input_tokens=contexts[0] if contexts else [],
                    output_tokens=choices,
                )
            )
        return responses

    def loglikelihood_rolling(self, docs: list[Any]) -> list[ModelResponse]:
        """The log-likelihood of each whole text, in one piece."""
        texts = [self.model.tokenizer.encode(doc.query, add_special_tokens=False).tolist() for doc in docs]
        first = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        if first is None:
            raise ConfigError("the tokenizer has neither a beginning nor an end token for a text's first one to follow")
        rows = [[first, *tokens] for tokens in texts]
        found = self.opened.scores(rows, [len(tokens) for tokens in texts], range(len(texts)))
        return [
            ModelResponse(logprobs=[logprob], argmax_logits_eq_gold=[greedy], input_tokens=tokens)
            for tokens, (logprob, greedy) in zip(texts, found, strict=True)
        ]

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = self.model.tokenizer.encode(text, add_special_tokens=self.add_special_tokens).tolist()
        return ids

    def _answers(
        self, prompts: Sequence[list[int]], limits: Sequence[int], stop: Sequence[str]
    ) -> list[tuple[str, list[int]]]:
        def compute(numbers: list[int]) -> list[list[Any]]:
            chosen, most = [prompts[number] for number in numbers], [limits[number] for number in numbers]
            return [[one.text, one.token_ids] for one in self.model.complete(chosen, most, stop=stop)]

        found = self.opened.over_replicas([len(prompt) for prompt in prompts], range(len(prompts)), compute)
        return [(text, tokens) for text, tokens in found]


def _for_transformers(tokenizer: Any) -> PreTrainedTokenizerFast:
    named = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    special = {name: tokenizer.fast.id_to_token(token) for name, token in named.items() if token is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.fast, chat_template=tokenizer.chat_template, pad_token=None, **special
    )
