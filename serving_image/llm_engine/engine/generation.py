"""`llm-engine generate`: one prompt, its text as it comes."""

from collections.abc import Callable
from queue import SimpleQueue

from llm_engine.engine.engine import Engine
from llm_engine.engine.messages import GenerationRequest, RequestTimes, TokenEvent
from llm_engine.sampling.parameters import SamplingParameters


def generate(
    engine: Engine,
    prompt: str,
    sampling: SamplingParameters,
    write: Callable[[str], None],
    chat: bool = False,
) -> RequestTimes:
    """Continue a prompt, giving each piece of text to `write`, and return where the time went.

    chat  take the prompt as a user's message, and write the assistant's answer

    Raises ValueError where the prompt does not fit, RuntimeError where the engine fails.
    """
    tokenizer = engine.tokenizer
    tokens = (
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
        if chat
        else tokenizer.encode(prompt)
    )
    events: SimpleQueue[TokenEvent] = SimpleQueue()
    engine.submit(GenerationRequest("generate", tuple(tokens), sampling), events.put)
    detokenizer = tokenizer.detokenizer()
    while True:
        event = events.get()
        write(detokenizer.add(event.token_ids))
        if event.times is not None:
            write(detokenizer.finish())
            if event.finish_reason == "error":
                raise RuntimeError(event.error)
            return event.times
