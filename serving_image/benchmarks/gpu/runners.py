"""Runners of random decoders, with noise in their caches, and requests for them."""

from random import Random
from typing import Final

from llm_engine.attention.cache import KVCache
from llm_engine.attention.choice import choose_attention, make_attention
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.memory_plan import LARGEST_STEPS
from llm_engine.engine import SamplingParameters
from llm_engine.engine.runner import Runner
from llm_engine.model.decoder import Decoder
from llm_engine.scheduling.request import Request

BLOCK_TOKENS: Final = 16
LONGEST_TOKENS: Final = 8192
GREEDY: Final = SamplingParameters(max_tokens=4096, temperature=0.0, ignore_eos=True)


def make_runner(
    decoder: Decoder, blocks: int, attention: AttentionName, has_graphs: bool = False
) -> Runner:
    """Return a runner with noise in its cache."""
    shape = decoder.settings.shape
    cache = KVCache.allocate(shape, blocks, BLOCK_TOKENS, decoder.dtype, decoder.device)
    for slot in cache.slots:
        slot.normal_()
    chosen = choose_attention(attention, decoder.device)
    backend = make_attention(chosen, cache, decoder.attention)
    graphs = None
    if has_graphs and decoder.device.type == "cuda":
        from llm_engine.engine.decode_graphs import make_graphs

        graphs = make_graphs(decoder, backend, LARGEST_STEPS["cuda"].requests, LONGEST_TOKENS)
    return Runner(decoder, cache, backend, threads=2, graphs=graphs)


def make_requests(count: int, tokens: int, room: int, vocabulary: int) -> list[Request]:
    """Return requests of random text with blocks for `room` tokens more, in no order."""
    chance = Random(3)
    blocks = -(-(tokens + room) // BLOCK_TOKENS)
    order = list(range(count * blocks))
    chance.shuffle(order)
    requests = []
    for number in range(count):
        text = [chance.randrange(1, vocabulary) for _ in range(tokens)]
        request = Request(str(number), text, BLOCK_TOKENS)
        request.tables[0].blocks = order[number * blocks : (number + 1) * blocks]
        requests.append(request)
    return requests
