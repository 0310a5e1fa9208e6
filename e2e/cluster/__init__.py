"""A real Kubernetes on this one Linux machine, without Docker, for the demo and the tests.

`python -m e2e.cluster up` starts it, `down` removes every trace of it. Its state lies in one place
outside any checkout, so that a fresh clone can reuse or replace what another one has started.
"""
