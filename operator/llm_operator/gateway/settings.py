"""Everything about the gateway that can be set; each field is a flag of `llm-operator gateway`."""

from dataclasses import dataclass, field

from llm_operator.api import names

MEBIBYTE = 1024**2


def _setting(default: float, text: str) -> float:
    return field(default=default, metadata={"help": text})


def _count(default: int, text: str) -> int:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """The gateway's settings, built once at the edge and never changed."""

    host: str = field(default="0.0.0.0", metadata={"help": "address to listen on"})
    port: int = _count(names.GATEWAY_PORT, "port for clients")
    metrics_port: int = _count(
        names.GATEWAY_METRICS_PORT, "port for /livez, /readyz and /metrics; 0 takes a free one"
    )

    max_body_bytes: int = _count(10 * MEBIBYTE, "largest request body; a larger one gets 413")
    read_body_s: float = _setting(30.0, "time a client gets to send its request body")
    client_idle_s: float = _setting(75.0, "an idle client connection is closed after this long")

    held_requests: int = _count(1000, "most requests held per model")
    held_bytes: int = _count(64 * MEBIBYTE, "most bytes of held requests per model")
    cold_start_s: float = _setting(120.0, "longest hold while a model has no ready replica")
    busy_wait_s: float = _setting(30.0, "longest hold while every replica is at its limit")
    replica_requests: int = _count(256, "most requests this gateway has in flight on a replica")

    connect_s: float = _setting(1.0, "time to connect to a replica")
    first_token_s: float = _setting(300.0, "time to the first token of a streamed answer")
    whole_answer_s: float = _setting(600.0, "time to an answer that is not streamed")
    between_chunks_s: float = _setting(30.0, "longest silence within a stream, of either side")

    probe_every_s: float = _setting(2.0, "pause between two probes of a healthy replica")
    probe_again_s: float = _setting(0.5, "pause between two probes of a replica in doubt")
    probe_timeout_s: float = _setting(1.0, "time a replica gets to answer a probe")

    drain_delay_s: float = _setting(
        5.0, "after SIGTERM, go on accepting this long: until all have seen that we are not ready"
    )
    drain_s: float = _setting(60.0, "after that, the time that running requests get to finish")
