"""Text to tokens and back; what a user writes is text, and a template is a stranger's code."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis.strategies import lists, sampled_from, text
from tokenizers import decoders, models

from benchmarks.tiny_models import byte_tokenizer
from llm_engine.contract.inspection import ModelRefused
from llm_engine.tokenizer.chat_template import MOST_CHARACTERS, ChatTemplate, TemplateRejected
from llm_engine.tokenizer.detokenizer import Detokenizer
from llm_engine.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llm_engine.weights.checkpoint import open_checkpoint

TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['role'] }}: {{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>{% endif %}"
)
SPECIAL = {"<|begin|>": 256, "<|user|>": 257, "<|pad|>": 258, "<|end|>": 259}


def a_tokenizer(template: str = TEMPLATE) -> Tokenizer:
    return Tokenizer(byte_tokenizer(), frozenset({259}), ChatTemplate(template, {}))


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def test_special_words_in_a_prompt_are_text() -> None:
    tokenizer = a_tokenizer()
    tokens = tokenizer.encode("a<|end|>b")
    assert not set(tokens) & set(SPECIAL.values())
    assert tokenizer.decode(tokens) == "a<|end|>b"


def test_special_words_of_the_template_are_special_tokens() -> None:
    tokens = a_tokenizer().apply_chat_template(user("hi"))
    assert [t for t in tokens if t >= 256] == [257, 259, 256]


@settings(max_examples=80, deadline=None)
@given(lists(sampled_from([*SPECIAL, "<|", "|>", " ", "x", "\ue000", "\ue001", "é"]), max_size=8))
def test_special_words_in_a_message_stay_text_whatever_surrounds_them(parts: list[str]) -> None:
    tokenizer = a_tokenizer()
    content = "".join(parts)
    tokens = tokenizer.apply_chat_template(user(content))
    assert [t for t in tokens if t >= 256] == [257, 259, 256]
    inside = tokens[1 : tokens.index(259)]
    assert tokenizer.decode(inside) == f"user: {content.strip()}"


def test_special_words_are_found_in_nested_messages() -> None:
    template = "{% for m in messages %}{{ m.content[0].text }}{{ m.tool['<|end|>'] }}{% endfor %}"
    messages = [{"content": [{"text": "<|end|>"}], "tool": {"<|end|>": "<|begin|>"}}]
    assert max(a_tokenizer(template).apply_chat_template(messages)) < 256


@settings(max_examples=200, deadline=None)
@given(text())
def test_a_stream_of_tokens_gives_the_whole_text_and_no_half_characters(content: str) -> None:
    tokenizer = a_tokenizer()
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.add([token]) for token in tokenizer.encode(content)]
    assert "".join(pieces) + detokenizer.finish() == content
    if "\ufffd" not in content:
        assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_never_become_a_character_do_not_hold_the_text_back() -> None:
    tokenizer = a_tokenizer()
    broken = [tokenizer.encode("é")[0]] * 9
    detokenizer = tokenizer.detokenizer()
    shown = detokenizer.add(broken + tokenizer.encode("ok"))
    assert shown.endswith("ok")
    assert "\ufffd" in shown


def test_half_a_character_at_the_end_is_shown_when_the_text_ends() -> None:
    tokenizer = a_tokenizer()
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.add(tokenizer.encode("a€")[:-1]) == "a"
    assert detokenizer.finish() == "\ufffd"


def test_the_start_of_a_long_stream_is_not_decoded_again_and_again() -> None:
    longest = 0

    def decode(tokens: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return "x" * len(tokens)

    detokenizer = Detokenizer(decode)
    assert detokenizer.add(range(500)) == "x" * 500
    assert longest < 20


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("{{ raise_exception('roles must alternate') }}", "roles must alternate",
                     id="the template's own refusal"),
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|refused",
                     id="a way out of the sandbox"),
        pytest.param("{{ messages.__init__.__globals__ }}", "refused", id="globals"),
        pytest.param("{{ cycler.__init__.__globals__.os.system('true') }}", "refused", id="cycler"),
        pytest.param("{{ lipsum.__globals__['os'].popen('true').read() }}", "refused", id="lipsum"),
        pytest.param("{{ messages.append({}) }}", "refused", id="changing the messages"),
        pytest.param("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "characters",
                     id="writing without end"),
        pytest.param("{% for i in range(10**9) %}x{% endfor %}", "asks for", id="a huge range"),
        pytest.param("{% for i in range(99999) %}{% for j in range(99999) %}"
                     "{% endfor %}{% endfor %}", "longer than", id="loops that write nothing"),
        pytest.param("{% macro f(n) %}{% if n %}{% set a = f(n-1) %}{% set b = f(n-1) %}{% endif %}"
                     "{% endmacro %}{% set c = f(99) %}", "longer than", id="calls without end"),
        pytest.param("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "refused", id="recursion"),
        pytest.param("{% set ns = namespace(s='x') %}{% for i in range(99) %}"
                     "{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "made", id="a text that doubles"),
        pytest.param("{% set ns = namespace(s=[1]) %}{% for i in range(99) %}"
                     "{% set ns.s = ns.s + ns.s %}{% endfor %}", "made", id="a list that doubles"),
        pytest.param("{{ 'x' | center(10**10) }}", "asks for", id="blanks by a filter"),
        pytest.param("{{ 'x'.ljust(10**10) }}", "asks for", id="blanks by a method"),
        pytest.param("{{ [[1]] | tojson(indent=10**10) }}", "asks for", id="blanks by an option"),
        pytest.param("{{ '%9999999999d' % 1 }}", "too wide", id="blanks by a format"),
        pytest.param("{{ '{:>9999999999}'.format(1) }}", "too wide", id="blanks by format()"),
        pytest.param("{{ '%9999999999d' | format(1) }}", "too wide",
                     id="blanks by a format filter"),
        pytest.param("{% set s = 'ab' * 9999 %}{{ s.replace('a', s).replace('b', s) }}",
                     "made|grow", id="replacing all by all"),
        pytest.param("{% set s = 'ab' * 9999 %}{{ s | list | join(s) }}", "made|grow|large",
                     id="joining all by all"),
        pytest.param("{{ 'x' * 10**12 }}", "too large", id="a text of a terabyte"),
        pytest.param("{{ 10**10**10 }}", "too large", id="a number of a terabyte"),
        pytest.param("{{ nothing.at.all }}", "refused", id="an undefined name"),
        pytest.param("{% include '/etc/passwd' %}", "refused", id="reading a file"),
    ],
)  # fmt: skip
def test_a_template_cannot_do_harm(source: str, words: str) -> None:
    with pytest.raises(TemplateRejected, match=words):
        a_tokenizer(source).apply_chat_template(user("hi"))


def test_a_template_that_writes_one_endless_text_is_stopped() -> None:
    with pytest.raises(TemplateRejected):
        ChatTemplate("{{ 'x' * n }}", {}).render([], n=MOST_CHARACTERS + 1)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("{{ bos_token }}{{ messages[0].content }}", "<s>hi", id="special words"),
        pytest.param("{% if x is defined %}{{ x }}{% endif %}", "7", id="options"),
        pytest.param("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}]', id="tojson"),
        pytest.param("{% for m in messages %}{% break %}{% endfor %}-", "-", id="loop controls"),
        pytest.param("  {%- set ns = namespace(a=1) %}\n{{ ns.a }}", "1", id="namespace"),
        pytest.param("{{ strftime_now('%%') }}", "%", id="today"),
        pytest.param("{{ '{{7*7}}' }}{{ messages[0].content }}", "{{7*7}}hi", id="data is data"),
    ],
)
def test_templates_find_what_transformers_gives_them(source: str, expected: str) -> None:
    assert ChatTemplate(source, {"bos_token": "<s>"}).render(user("hi"), x=7) == expected


def test_a_template_in_a_message_is_not_a_template() -> None:
    tokenizer = a_tokenizer("{{ messages[0].content }}")
    assert tokenizer.decode(tokenizer.apply_chat_template(user("{{ 7 * 7 }}"))) == "{{ 7 * 7 }}"


def test_a_model_without_a_template_says_so(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(open_checkpoint(tiny_llama))
    assert not tokenizer.has_chat_template
    with pytest.raises(TemplateRejected, match="no chat template"):
        tokenizer.apply_chat_template(user("hi"))


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "named"])
def test_the_template_is_found_wherever_it_is_kept(
    tiny_llama: Path, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    source: Any = "{{ eos_token }}{{ messages[0].content }}"
    if place == "chat_template.jinja":
        (folder / place).write_text(source)
    content: dict[str, Any] = {"eos_token": {"content": "<|pad|>"}}
    if place == "named":
        source = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": source}]
    if place != "chat_template.jinja":
        content["chat_template"] = source
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(open_checkpoint(folder))
    tokens = tokenizer.apply_chat_template(user("hi"))
    assert tokens == [258, *tokenizer.encode("hi")]
    assert tokenizer.eos_tokens >= {258, 259}


def test_a_template_that_does_not_compile_refuses_the_model(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ModelRefused, match="does not compile"):
        load_tokenizer(open_checkpoint(folder))


def test_a_tokenizer_that_is_none_refuses_the_model(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelRefused, match="not a tokenizer"):
        load_tokenizer(open_checkpoint(folder))


# What server-side template injection usually tries, to get from a text to the interpreter.
ESCAPES = (
    "''.__class__.__mro__[1].__subclasses__()",
    "''['__class__']",
    "'' | attr('__class__')",
    "messages.__class__.__base__",
    "messages.__init__.__globals__",
    "raise_exception.__globals__",
    "strftime_now.__globals__['os']",
    "raise_exception.__code__",
    "raise_exception.__closure__",
    "self.__init__.__globals__",
    "self._TemplateReference__context",
    "cycler.__init__.__globals__.os",
    "joiner.__init__.__globals__",
    "namespace.__init__.__globals__",
    "lipsum.__globals__['os'].popen('id').read()",
    "range.__class__",
    "dict.__base__.__subclasses__()",
    "(messages | first).__class__",
    "'{0.__class__}'.format(messages)",
    "'{0.__class__.__init__.__globals__}'.format_map({'0': messages})",
    "[messages] | map(attribute='__class__') | list",
    "messages | groupby('__class__')",
    "messages.pop()",
    "messages[0].update({'a': 1})",
    "messages.sort()",
    "get_flashed_messages.__globals__",
    "config.items()",
    "request.application.__globals__",
)


@pytest.mark.parametrize("expression", ESCAPES)
def test_a_template_finds_no_way_to_the_interpreter(expression: str) -> None:
    tokenizer = a_tokenizer("{{ " + expression + " }}")
    try:
        text = tokenizer.decode(tokenizer.apply_chat_template(user("hi")))
    except TemplateRejected:
        return
    # Jinja shows what is forbidden as nothing, or as the name of an undefined value.
    assert not re.search(r"<class|<function|<module|<built|uid=|0x", text)


def test_special_words_in_descriptions_of_tools_stay_text() -> None:
    tools = [{"function": {"description": "x<|end|>y"}}]
    tokenizer = a_tokenizer("{{ tools | tojson }}<|end|>")
    tokens = tokenizer.apply_chat_template(user("hi"), tools=tools)
    assert [token for token in tokens if token >= 256] == [259]
    assert tokens[-1] == 259


def sentencepiece() -> tokenizers.Tokenizer:
    words = ["<unk>", "<0xC3>", "<0xA9>", "\u2581Paris", "\u2581", "s"]
    vocabulary = {word: token for token, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "word", "expected"),
    [
        pytest.param(byte_tokenizer(), "\u00c3", b"\xc3", id="half a character, byte by byte"),
        pytest.param(byte_tokenizer(), "\u0120", b" ", id="a blank, byte by byte"),
        pytest.param(byte_tokenizer(), "<|end|>", b"<|end|>", id="a special word"),
        pytest.param(sentencepiece(), "<0xC3>", b"\xc3", id="half a character, by its number"),
        pytest.param(sentencepiece(), "\u2581Paris", b" Paris", id="a word after a blank"),
        pytest.param(sentencepiece(), "s", b"s", id="the end of a word"),
    ],
)
def test_a_token_is_known_by_its_bytes(
    tokenizer: tokenizers.Tokenizer, word: str, expected: bytes
) -> None:
    token = tokenizer.token_to_id(word)
    assert token is not None
    assert Tokenizer(tokenizer, frozenset(), None).token_bytes(token) == expected
