"""One model's tokenizer: encode, decode, and apply its chat template."""

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tokenizers

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.tokenizer.byte_words import WORD_BEGIN, bytes_of_word
from llm_engine.tokenizer.chat_template import ChatTemplate, TemplateRejected
from llm_engine.tokenizer.detokenizer import Detokenizer
from llm_engine.tokenizer.gguf_vocabulary import tokenizer_from_gguf
from llm_engine.weights.checkpoint import Checkpoint
from llm_engine.weights.settings import read_json_object

# Words that end a turn or a text wherever they exist; some models' files name only one of them.
_ENDING_WORDS: Final = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>")
_MARKERS: Final = range(0xE000, 0xF8FF)
"""Unicode's private use area: a character from it that a chat does not use can mark a place."""


class Tokenizer:
    """Thread-safe. What a user writes is text: it never becomes a special token.

    eos_tokens  ids after which the model has nothing more to say
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        eos_tokens: frozenset[int],
        template: ChatTemplate | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._template = template
        added = tokenizer.get_added_tokens_decoder()
        self._special_ids = {t.content: i for i, t in added.items() if t.special}
        ending = {self._special_ids[word] for word in _ENDING_WORDS if word in self._special_ids}
        self.eos_tokens = eos_tokens | ending
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special_pattern = re.compile(
            "(" + "|".join(map(re.escape, longest_first)) + ")" if longest_first else "(?!)"
        )

    @property
    def has_chat_template(self) -> bool:
        """Tell whether the model brought a chat template."""
        return self._template is not None

    @property
    def chat_template(self) -> str | None:
        """The source of the chat template that the model brought."""
        return None if self._template is None else self._template.source

    @property
    def vocabulary(self) -> int:
        """Count ids, special ones included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def to_json(self) -> str:
        """Return the tokenizer in the format of the `tokenizers` package."""
        return self._tokenizer.to_str()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Encode text; special words in it are mere letters.

        add_special_tokens  whether the model's own beginning (and end) is put around the text
        """
        with self._lock:
            self._tokenizer.encode_special_tokens = True
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Decode tokens; an unfinished character shows as U+FFFD."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token: int) -> bytes:
        """Return what one token adds to a text; it may be a part of a character."""
        word = self._tokenizer.id_to_token(token) or ""
        if word.startswith(WORD_BEGIN):  # whose blank is lost where it is decoded alone
            return word.replace(WORD_BEGIN, " ").encode()
        text = self.decode([token], skip_special_tokens=False)
        if "\N{REPLACEMENT CHARACTER}" not in text:
            return text.encode()
        return bytes_of_word(word) or text.encode()

    def detokenizer(self, *, skip_special_tokens: bool = True) -> Detokenizer:
        """Return a decoder for one stream of tokens."""
        return Detokenizer(lambda ids: self.decode(ids, skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **options: Any,
    ) -> list[int]:
        """Render messages and encode the result; raise TemplateRejected if the template does.

        Special words that the template writes become special tokens. Those in the messages and in
        the options are marked by a character which they do not use, so that they stay text.
        """
        if self._template is None:
            raise TemplateRejected("this model has no chat template; use completions instead")
        marker = _unused_character([*messages, options])
        marked = self._mark(messages, marker)
        options = self._mark(options, marker)
        text = self._template.render(marked, add_generation_prompt=add_generation_prompt, **options)
        if marker not in text:
            with self._lock:
                self._tokenizer.encode_special_tokens = False
                return self._tokenizer.encode(text, add_special_tokens=False).ids
        tokens: list[int] = []
        for piece in self._special_pattern.split(text):
            special = self._special_ids.get(piece)
            plain = piece.replace(marker, "")
            tokens += self.encode(plain, add_special_tokens=False) if special is None else [special]
        return tokens

    def _mark(self, value: Any, marker: str) -> Any:
        """Break every special word in these messages with the marker."""
        if isinstance(value, str):
            return self._special_pattern.sub(lambda m: m[0][0] + marker + m[0][1:], value)
        if isinstance(value, Mapping):
            return {key: self._mark(item, marker) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._mark(item, marker) for item in value]
        return value


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Load the tokenizer beside (safetensors) or inside (GGUF) the weights."""
    if checkpoint.file_format == "gguf":
        return _load_from_gguf(checkpoint)
    return _load_from_folder(checkpoint)


def _load_from_gguf(checkpoint: Checkpoint) -> Tokenizer:
    metadata = checkpoint.metadata
    tokenizer = tokenizer_from_gguf(checkpoint.path, metadata)
    words = metadata["tokenizer.ggml.tokens"]
    special = {}
    for name, key in (("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")):
        token = metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(token, int) and token < len(words):
            special[name] = words[token]
    source = metadata.get("tokenizer.chat_template")
    template = _compile(checkpoint.path, source, special)
    return Tokenizer(tokenizer, checkpoint.settings.eos_tokens, template)


def _load_from_folder(checkpoint: Checkpoint) -> Tokenizer:
    path = checkpoint.path / "tokenizer.json"
    if not path.is_file():
        raise ModelRefused(
            FailureReason.INVALID_MODEL, f"{path} is missing; expected it beside the weights"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # what tokenizers raises for any flaw
        raise ModelRefused(
            FailureReason.INVALID_MODEL, f"{path}: not a tokenizer ({error})"
        ) from error
    config_path = checkpoint.path / "tokenizer_config.json"
    config = read_json_object(config_path) if config_path.is_file() else {}
    special = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = config.get(name)
        word = value.get("content") if isinstance(value, dict) else value
        if isinstance(word, str):
            special[name] = word
    own_file = checkpoint.path / "chat_template.jinja"
    source = own_file.read_text() if own_file.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several named ones: the one named default is for chats
        source = {item["name"]: item["template"] for item in source}.get("default")
    ends = checkpoint.settings.eos_tokens
    end = tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None
    ends = ends if end is None else ends | {end}
    return Tokenizer(tokenizer, ends, _compile(checkpoint.path, source, special))


def _compile(path: Path, source: Any, special: Mapping[str, str]) -> ChatTemplate | None:
    if not isinstance(source, str):
        return None
    try:
        return ChatTemplate(source, special)
    except TemplateRejected as error:
        raise ModelRefused(FailureReason.INVALID_MODEL, f"{path}: {error}") from error


def _unused_character(messages: Sequence[Mapping[str, Any]]) -> str:
    used = _letters(messages)
    for code in _MARKERS:
        if chr(code) not in used:
            return chr(code)
    raise TemplateRejected("the messages use every private character of Unicode")


def _letters(value: Any) -> set[str]:
    if isinstance(value, str):
        return set(value)
    if isinstance(value, Mapping):
        return set().union(*(_letters(item) for item in value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*(_letters(item) for item in value))
    return set()
