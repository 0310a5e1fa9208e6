"""Build a tokenizer from the vocabulary inside a GGUF file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors

from llm_engine.contract.inspection import FailureReason, ModelRefused

CONTROL: Final = 3
USER_DEFINED: Final = 4

_LLAMA3_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _single_digits() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _llama3() -> Any:
    split = pre_tokenizers.Split(Regex(_LLAMA3_WORDS), behavior="isolated")
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


# How text is cut into words before merging, by GGUF's name for it (llama.cpp: llama-vocab.cpp).
_WORD_SPLITS: Final[dict[str, Callable[[], Any]]] = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": _single_digits,
    "starcoder": _single_digits,
    "refact": _single_digits,
    "command-r": _single_digits,
    "llama-bpe": _llama3,
    "llama3": _llama3,
}


def tokenizer_from_gguf(path: Path, metadata: dict[str, Any]) -> tokenizers.Tokenizer:
    """Build the byte-level BPE tokenizer that a GGUF file describes."""
    model = metadata.get("tokenizer.ggml.model")
    split = metadata.get("tokenizer.ggml.pre", "default")
    if model != "gpt2" or split not in _WORD_SPLITS:
        raise ModelRefused(
            FailureReason.UNSUPPORTED_MODEL,
            f"{path}: the tokenizer is {model!r} with the word split {split!r}; this engine reads "
            f"'gpt2' with one of {', '.join(_WORD_SPLITS)}, or safetensors with tokenizer.json",
        )
    words = metadata.get("tokenizer.ggml.tokens", ())
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.get("tokenizer.ggml.merges", ())]
    kinds = metadata.get("tokenizer.ggml.token_type", ())
    try:
        bpe = models.BPE(
            vocab={word: token for token, word in enumerate(words)},
            merges=merges,
            ignore_merges=split in ("llama-bpe", "llama3"),
        )
    except Exception as error:  # what tokenizers raises for a bad vocabulary
        raise ModelRefused(
            FailureReason.INVALID_MODEL, f"{path}: the vocabulary is unsound ({error})"
        ) from error
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = _WORD_SPLITS[split]()
    tokenizer.decoder = decoders.ByteLevel()
    marked = [(word, kind) for word, kind in zip(words, kinds, strict=False) if kind != 1]
    control = [AddedToken(w, special=True, normalized=False) for w, k in marked if k == CONTROL]
    defined = [AddedToken(w, normalized=False) for w, k in marked if k == USER_DEFINED]
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens(defined)
    begin = metadata.get("tokenizer.ggml.bos_token_id")
    if metadata.get("tokenizer.ggml.add_bos_token", False) and begin is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{words[begin]} $A", special_tokens=[(words[begin], begin)]
        )
    return tokenizer
