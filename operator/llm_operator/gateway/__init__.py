"""OpenAI-compatible streaming proxy between clients and engine replicas.

Picks the replica with the least outstanding tokens, holds requests while a model wakes up, and
counts demand for the operator. Stateless: gateways need not know of each other.
"""
