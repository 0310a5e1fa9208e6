"""Reads the metrics of engines and gateways; what was read is plain data for the scaling law."""

from llm_operator.scrape.scraper import EngineTarget, GatewayTarget, Scraper

__all__ = ["EngineTarget", "GatewayTarget", "Scraper"]
