import pytest

from llm_operator.gateway.replica import Health, Replica, Sign


@pytest.mark.parametrize(
    ("signs", "health"),
    [
        pytest.param([], Health.UP, id="new: it became ready before we heard of it"),
        pytest.param([Sign.REFUSED], Health.OUT, id="one refused connection"),
        pytest.param([Sign.NOT_READY], Health.OUT, id="its own word"),
        pytest.param([Sign.TIMED_OUT] * 2, Health.UP, id="two timeouts"),
        pytest.param([Sign.TIMED_OUT] * 3, Health.SILENT, id="three timeouts"),
        pytest.param([Sign.TIMED_OUT] * 9, Health.SILENT, id="timeouts alone never put it out"),
        pytest.param(
            [Sign.TIMED_OUT, Sign.TIMED_OUT, Sign.READY, Sign.TIMED_OUT, Sign.TIMED_OUT],
            Health.UP,
            id="timeouts count in a row only",
        ),
        pytest.param([Sign.TIMED_OUT] * 3 + [Sign.ALIVE], Health.UP, id="tokens end a silence"),
        pytest.param([Sign.NOT_READY, Sign.ALIVE], Health.OUT, id="tokens of a draining replica"),
        pytest.param([Sign.REFUSED, Sign.TIMED_OUT], Health.OUT, id="a timeout heals nothing"),
        pytest.param([Sign.REFUSED, Sign.READY], Health.UP, id="one good probe brings it back"),
    ],
)
def test_health(signs: list[Sign], health: Health) -> None:
    replica = Replica("http://r")
    for sign in signs:
        replica.observe(sign)
    assert replica.health is health


def test_only_the_way_back_is_news() -> None:
    replica = Replica("http://r")
    signs = [Sign.READY, Sign.REFUSED, Sign.REFUSED, Sign.READY, Sign.READY]
    assert [replica.observe(sign) for sign in signs] == [False, False, False, True, False]
