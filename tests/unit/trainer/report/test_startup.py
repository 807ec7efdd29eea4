import time

from trainyard_crds.report import Stage
from trainyard_trainer.clock import SystemClock, process_start_time
from trainyard_trainer.report.startup import IMPORTS, RUN_DIRECTORY, StartupTimer


def test_breakdown_covers_the_time_until_the_first_step() -> None:
    startup = StartupTimer(10.0)
    startup.enter(RUN_DIRECTORY, 12.0)
    startup.enter(IMPORTS, 12.5)
    startup.stage(Stage.DOWNLOADING, 13.0)
    startup.stage(Stage.PREPARING_DATA, 13.0)
    startup.stage(Stage.LOADING_MODEL, 14.0)
    startup.stage(Stage.TRAINING, 16.0)
    assert startup.first_step_done(16.25) == (
        "The first step finished 6.25 s after the process start: imports 2.50 s, run directory 0.50 s,"
        " model and dataset files 0.00 s, data 1.00 s, model 2.00 s, first step 0.25 s."
    )


def test_breakdown_is_returned_once() -> None:
    startup = StartupTimer(0.0)
    assert startup.first_step_done(1.0) is not None
    assert startup.first_step_done(2.0) is None


def test_process_start_time_is_in_the_past() -> None:
    clock = SystemClock()
    age = clock.monotonic() - process_start_time(clock)
    assert 0 < age < 24 * 3600
    assert age > time.thread_time() - 1, "the CPU time of a thread must not exceed the age of its process"
