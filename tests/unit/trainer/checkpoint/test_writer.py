from collections.abc import Callable, Iterator
from threading import Event, get_ident

import pytest

from tests.unit.timeouts import TIMEOUT
from trainyard_trainer.checkpoint.writer import Writer


@pytest.fixture
def writer() -> Iterator[Writer[int]]:
    writer: Writer[int] = Writer()
    yield writer
    writer.close()


def after(gate: Event, result: int) -> Callable[[], int]:
    def job() -> int:
        assert gate.wait(TIMEOUT)
        return result

    return job


def test_a_job_is_done_by_another_thread_and_its_result_is_given_once(writer: Writer[int]) -> None:
    writer.start(get_ident)
    assert writer.collect(wait=True) not in (None, get_ident())
    assert writer.collect(wait=True) is None


def test_nobody_waits_for_a_job_who_does_not_want_to(writer: Writer[int]) -> None:
    gate = Event()
    writer.start(after(gate, 7))
    assert writer.is_busy
    assert writer.collect(wait=False) is None
    gate.set()
    assert writer.collect(wait=True) == 7
    assert not writer.is_busy


def test_there_is_one_job_at_a_time(writer: Writer[int]) -> None:
    gate = Event()
    writer.start(after(gate, 7))
    with pytest.raises(AssertionError, match="one job at a time"):
        writer.start(after(gate, 8))
    gate.set()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError("no"), Interrupted()])
def test_what_a_job_raises_is_raised_once_where_its_result_is_taken(writer: Writer[int], error: BaseException) -> None:
    def fail() -> int:
        raise error

    writer.start(fail)
    with pytest.raises(type(error)):
        writer.collect(wait=True)
    assert writer.collect(wait=True) is None
    writer.start(lambda: 1)
    assert writer.collect(wait=True) == 1


def test_closing_lets_the_job_end() -> None:
    writer: Writer[int] = Writer()
    gate = Event()
    writer.start(after(gate, 7))
    gate.set()
    writer.close()
    assert writer.collect(wait=False) == 7
