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


def test_job_runs_in_another_thread_and_its_result_is_returned_once(writer: Writer[int]) -> None:
    writer.start(get_ident)
    assert writer.collect(wait=True) not in (None, get_ident())
    assert writer.collect(wait=True) is None


def test_collect_without_wait_does_not_block(writer: Writer[int]) -> None:
    gate = Event()
    writer.start(after(gate, 7))
    assert writer.is_busy
    assert writer.collect(wait=False) is None
    gate.set()
    assert writer.collect(wait=True) == 7
    assert not writer.is_busy


def test_second_job_is_refused_while_one_is_running(writer: Writer[int]) -> None:
    gate = Event()
    writer.start(after(gate, 7))
    with pytest.raises(AssertionError, match="one job at a time"):
        writer.start(after(gate, 8))
    gate.set()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError("no"), Interrupted()])
def test_error_of_a_job_is_raised_once_by_collect(writer: Writer[int], error: BaseException) -> None:
    def fail() -> int:
        raise error

    writer.start(fail)
    with pytest.raises(type(error)):
        writer.collect(wait=True)
    assert writer.collect(wait=True) is None
    writer.start(lambda: 1)
    assert writer.collect(wait=True) == 1


def test_close_waits_for_the_job() -> None:
    writer: Writer[int] = Writer()
    gate = Event()
    writer.start(after(gate, 7))
    gate.set()
    writer.close()
    assert writer.collect(wait=False) == 7
