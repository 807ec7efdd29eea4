"""When the artifact reader ends by itself."""

from __future__ import annotations

from trainyard_serving.artifacts.idle import IdleTimer


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_reader_ends_after_the_idle_time_since_the_last_answer() -> None:
    clock = Clock()
    idle = IdleTimer(60, clock)
    clock.now += 50
    assert idle.left == 10
    with idle.request():
        clock.now += 500
        assert idle.left == 60
    assert idle.left == 60
    clock.now += 61
    assert idle.left == 0


def test_every_open_request_counts() -> None:
    clock = Clock()
    idle = IdleTimer(60, clock)
    with idle.request():
        with idle.request():
            clock.now += 70
        clock.now += 70
        assert idle.left == 60
    clock.now += 60
    assert idle.left == 0


def test_failed_request_ends_too() -> None:
    clock = Clock()
    idle = IdleTimer(60, clock)
    try:
        with idle.request():
            raise ConnectionResetError
    except ConnectionResetError:
        clock.now += 60
    assert idle.left == 0
