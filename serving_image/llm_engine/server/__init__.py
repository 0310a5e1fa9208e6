"""HTTP in front of the engine: OpenAI-style API, probes, metrics, drain.

Importing this package imports nothing heavy: the port must answer before torch is loaded.
"""
