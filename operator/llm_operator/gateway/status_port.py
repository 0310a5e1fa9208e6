"""The port of kubelet, operator and Prometheus: alive, ready, and the metrics."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from llm_operator.gateway.fleet import Fleet
from llm_operator.gateway.metrics import Metrics
from llm_operator.gateway.proxy import Proxy

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class StatusPort:
    """Answers /livez, /readyz and /metrics."""

    fleet: Fleet
    proxy: Proxy
    metrics: Metrics

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        match request.rel_url.raw_path:
            case "/livez":
                return web.Response(text="alive\n")
            case "/readyz":
                return self._ready()
            case "/metrics":
                headers = {"Content-Type": METRICS_CONTENT_TYPE}
                return web.Response(body=self.metrics.text(), headers=headers)
        return web.Response(status=404, text="there are /livez, /readyz and /metrics\n")

    def _ready(self) -> web.Response:
        if self.proxy.draining:
            return web.Response(status=503, text="draining\n")
        if not self.fleet.known:
            return web.Response(status=503, text="learning the models from the API server\n")
        return web.Response(text="ready\n")
