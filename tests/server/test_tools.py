"""Function calls over the API: prompt, grammar, answers whole and streamed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from llm_engine.server.tools.formats import FORMATS, format_of
from tests.server.fake_engine import FakeEngine
from tests.server.served import Served, events, serving

HERMES = 'Call as <tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>'
LLAMA3 = "<|start_header_id|> parameters: dictionary of argument name and its value"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "required": ["city"],
            "$defs": {"city": {"type": "string"}},
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def speaking(template: str, answer: str) -> FakeEngine:
    engine = FakeEngine(answer, max_context_tokens=512)
    engine.tokenizer.chat_template = template
    return engine


@pytest.fixture
async def caller() -> AsyncIterator[Served]:
    async with serving(speaking(HERMES, f"Let me see.\n{CALL}\n{CALL}")) as served:
        yield served


@pytest.mark.parametrize(
    ("template", "name"),
    [
        pytest.param(HERMES, "hermes", id="Qwen and Hermes"),
        pytest.param(LLAMA3, "llama3", id="Llama 3"),
        pytest.param(HERMES + "<function=", None, id="the same tag around another format"),
        pytest.param("{{ messages }}", None, id="no format"),
        pytest.param(None, None, id="no template"),
    ],
)
def test_the_template_tells_the_format(template: str | None, name: str | None) -> None:
    spoken = format_of(template)
    assert (None if spoken is None else spoken.name) == name


async def test_calls_are_taken_out_of_the_text(caller: Served) -> None:
    (choice,) = (await caller.chat(tools=[WEATHER])).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see.\n"
    first, second = choice["message"]["tool_calls"]
    assert first["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert first["id"] != second["id"]
    assert caller.engine.tokenizer.options == {"tools": [WEATHER]}
    assert caller.engine.seen[0].sampling.grammar is None


async def test_a_stream_carries_the_same_calls(caller: Served) -> None:
    chunks = events((await caller.chat(tools=[WEATHER], stream=True)).text)
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert [(call["index"], call["function"]["name"]) for call in calls] == [
        (0, "weather"),
        (1, "weather"),
    ]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Let me see.\n"
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert chunks[-1] == "[DONE]"


async def test_one_call_is_enough_where_parallel_calls_are_off(caller: Served) -> None:
    (choice,) = (await caller.chat(tools=[WEATHER], parallel_tool_calls=False)).json()["choices"]
    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["finish_reason"] == "tool_calls"
    assert len(caller.engine.aborted) == 1


async def test_no_call_is_an_ordinary_answer() -> None:
    async with serving(speaking(HERMES, "No.")) as served:
        (choice,) = (await served.chat(tools=[WEATHER])).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": "No.", "refusal": None}
    assert choice["finish_reason"] == "stop"


async def test_tools_that_must_not_be_called_do_not_reach_the_prompt(caller: Served) -> None:
    (choice,) = (await caller.chat(tools=[WEATHER], tool_choice="none")).json()["choices"]
    assert caller.engine.tokenizer.options == {}
    assert "<tool_call>" in choice["message"]["content"]


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        pytest.param(HERMES, CALL, id="hermes"),
        pytest.param(LLAMA3, '{"name": "weather", "parameters": {"city": "Oslo"}}', id="llama3"),
    ],
)
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
async def test_a_call_that_must_come_is_enforced_by_a_grammar(
    template: str, answer: str, choice: Any
) -> None:
    async with serving(speaking(template, answer)) as served:
        response = await served.chat(tools=[WEATHER, TIME], tool_choice=choice)
        assert response.status_code == 200, response.text
        (call,) = response.json()["choices"][0]["message"]["tool_calls"]
        grammar = served.engine.seen[0].sampling.grammar
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo"}
    assert grammar is not None
    assert ('"time' in grammar.replace("\\", "")) is (choice == "required")


async def test_a_schema_that_will_not_do_is_refused(caller: Served) -> None:
    function = {"name": "f", "parameters": {"type": "objet"}}
    tools = [{"type": "function", "function": function}]
    response = await caller.chat(tools=tools, tool_choice="required")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tools")


async def test_earlier_calls_and_their_results_reach_the_template(caller: Served) -> None:
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    messages = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]
    await caller.chat(messages=messages, tools=[WEATHER])
    prompt = bytes(caller.engine.seen[0].prompt_tokens).decode()
    assert prompt == "<user>hi\n<assistant>\n<tool>rain\n"


@pytest.mark.parametrize("spoken", FORMATS, ids=lambda one: one.name)
@pytest.mark.parametrize("required", [True, False], ids=["required", "strict"])
async def test_every_grammar_compiles(spoken: Any, required: bool) -> None:
    async with serving(speaking(HERMES if spoken.name == "hermes" else LLAMA3, "x")) as served:
        strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}  # type: ignore[operator]
        choice = "required" if required else "auto"
        response = await served.chat(tools=[strict, TIME], tool_choice=choice, max_tokens=1)
    assert response.status_code == 200, response.text


async def test_the_official_client_reads_calls_and_sends_results(caller: Served) -> None:
    connect: Any = openai.AsyncOpenAI
    client = connect(
        base_url="http://engine/v1", api_key="none", http_client=caller.client, max_retries=0
    )
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    whole = await client.chat.completions.create(model="fake", messages=messages, tools=[WEATHER])
    async with client.chat.completions.stream(
        model="fake", messages=messages, tools=[WEATHER]
    ) as stream:
        streamed = await stream.get_final_completion()

    def calls(completion: Any) -> list[tuple[str, str]]:
        found = completion.choices[0].message.tool_calls
        return [(call.function.name, call.function.arguments) for call in found]

    assert calls(whole) == calls(streamed) == [("weather", '{"city": "Oslo"}')] * 2
    answered = whole.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in answered.tool_calls
    ]
    again = await client.chat.completions.create(
        model="fake", messages=[*messages, answered, *results], tools=[WEATHER]
    )
    assert again.choices[0].finish_reason == "tool_calls"
