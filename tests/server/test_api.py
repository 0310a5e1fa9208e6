"""Everything beside the completions: models, tokens, version, logs, stalls."""

import asyncio
import json
import logging

import pytest

from llm_engine.engine.messages import GenerationRequest
from llm_engine.sampling.parameters import SamplingParameters
from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.log_lines import start_logging
from llm_engine.server.metrics import Metrics
from llm_engine.server.streams import STALLED_AFTER_S, Room, Streams
from tests.server.served import Served, until


async def test_models_are_listed_with_their_context(served: Served) -> None:
    (model,) = (await served.client.get("/v1/models")).json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("fake", "model", 256)
    assert (await served.client.get("/v1/models/fake")).json() == model


async def test_text_becomes_tokens_and_back(served: Served) -> None:
    tokens = (await served.client.post("/tokenize", json={"prompt": "h\u00e9"})).json()
    assert tokens == {"count": 3, "max_model_len": 256, "tokens": [104, 195, 169]}
    text = await served.client.post("/detokenize", json={"tokens": tokens["tokens"]})
    assert text.json() == {"prompt": "h\u00e9"}


async def test_a_conversation_becomes_tokens_with_its_template(served: Served) -> None:
    messages = [{"role": "user", "content": "hi"}]
    tokens = (await served.client.post("/tokenize", json={"messages": messages})).json()
    assert bytes(tokens["tokens"]) == b"<user>hi\n"


async def test_the_version_is_that_of_the_distribution(served: Served) -> None:
    assert (await served.client.get("/version")).json()["version"].count(".") == 2


async def test_a_drain_can_be_asked_for(served: Served) -> None:
    assert (await served.client.post("/drain")).status_code == 202
    assert served.drains == ["drain"]


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        pytest.param("abc-1", True, id="a sane id is echoed"),
        pytest.param("x" * 200, False, id="a long one is replaced"),
        pytest.param("a b", False, id="one with a space is replaced"),
    ],
)
async def test_request_ids(served: Served, given: str, echoed: bool) -> None:
    response = await served.client.get("/version", headers={"x-request-id": given})
    assert (response.headers["x-request-id"] == given) is echoed
    assert len(response.headers["x-request-id"]) <= 128


async def test_the_access_log_has_sizes_and_no_prompt(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "llm_engine.access"):
        await served.complete(prompt="a secret", max_tokens=3, user="someone")
        await served.metrics()
    (record,) = caplog.records  # the scrape is not worth a line
    fields = record.__dict__["fields"]
    assert (fields["method"], fields["path"], fields["status"]) == ("POST", "/v1/completions", 200)
    assert (fields["prompt_tokens"], fields["output_tokens"]) == (8, 3)
    assert "secret" not in str(vars(record))
    assert "someone" not in str(vars(record))


def test_log_lines_are_json_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        start_logging()
        logging.getLogger("x").info("line\nbreak", extra={"fields": {"status": 200}})
        line = json.loads(capsys.readouterr().err)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert (line["level"], line["message"], line["status"]) == ("info", "line\nbreak", 200)


async def test_an_engine_that_computes_nothing_for_30_s_counts_as_hung(served: Served) -> None:
    now_s = 1000.0
    engine = served.engine
    metrics = Metrics("fake", engine, Lifecycle(0.0))
    loop = asyncio.get_running_loop()
    streams = Streams(engine, metrics, loop, Room(9, 99), clock=lambda: now_s)
    assert streams.why_stalled() is None

    now_s += 10 * STALLED_AFTER_S
    assert streams.why_stalled() is None, "an idle engine is not hung"

    engine.hold.clear()
    stream = streams.open(GenerationRequest("r", (1,), SamplingParameters(max_tokens=5)))
    now_s += STALLED_AFTER_S
    assert streams.why_stalled() is None
    now_s += 1
    assert "1 requests are open" in str(streams.why_stalled())

    streams.step_done()  # a long prompt is computed in chunks: no token, and yet it moves
    assert streams.why_stalled() is None

    with stream:
        pass
    await until(lambda: streams.open_requests == 0)
    engine.healthy = False
    assert streams.why_stalled() == "the engine has died"


async def test_a_request_to_an_engine_that_has_stopped_is_sent_elsewhere(served: Served) -> None:
    served.engine.stop()
    response = await served.complete()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_stopped")
