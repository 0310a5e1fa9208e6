import pytest

from llm_engine.server.lifecycle import Lifecycle, process_began_s


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_every_phase_of_a_start_is_timed() -> None:
    clock = Clock()
    lifecycle = Lifecycle(began_s=99.0, clock=clock)
    lifecycle.enter("weights")
    clock.now_s = 103.0
    lifecycle.enter("weights")
    lifecycle.enter("warmup")
    clock.now_s = 104.0
    assert (lifecycle.phase, lifecycle.started, lifecycle.ready) == ("warmup", False, False)
    assert lifecycle.seconds_by_phase() == {"process": 1.0, "weights": 3.0, "warmup": 1.0}

    lifecycle.finish_start()
    clock.now_s = 500.0
    assert (lifecycle.phase, lifecycle.started, lifecycle.ready) == ("ready", True, True)
    assert lifecycle.seconds_by_phase() == {"process": 1.0, "weights": 3.0, "warmup": 1.0}
    assert lifecycle.start_seconds() == pytest.approx(5.0)


def test_draining_ends_readiness_but_not_the_start() -> None:
    lifecycle = Lifecycle(0.0)
    lifecycle.finish_start()
    lifecycle.draining = True
    assert (lifecycle.phase, lifecycle.started, lifecycle.ready) == ("draining", True, False)


def test_the_process_began_before_this_test() -> None:
    import time

    began_s = process_began_s()
    assert began_s < time.monotonic()
    assert process_began_s() == pytest.approx(began_s, abs=0.05)
