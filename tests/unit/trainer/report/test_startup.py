import time

from trainyard_crds.report import Stage
from trainyard_trainer.clock import SystemClock, process_start_time
from trainyard_trainer.report.startup import IMPORTS, RUN_DIRECTORY, StartupTimer


def test_every_moment_until_the_first_step_belongs_to_one_part() -> None:
    startup = StartupTimer(10.0)
    startup.enter(RUN_DIRECTORY, 12.0)
    startup.enter(IMPORTS, 12.5)
    startup.stage(Stage.DOWNLOADING, 13.0)
    startup.stage(Stage.PREPARING_DATA, 13.0)
    startup.stage(Stage.LOADING_MODEL, 14.0)
    startup.stage(Stage.TRAINING, 16.0)
    assert startup.first_step_done(16.25) == (
        "The first step was done 6.25 s after the process began: imports 2.50 s, run directory 0.50 s,"
        " model and dataset files 0.00 s, data 1.00 s, model 2.00 s, first step 0.25 s."
    )


def test_only_the_first_step_tells_it() -> None:
    startup = StartupTimer(0.0)
    assert startup.first_step_done(1.0) is not None
    assert startup.first_step_done(2.0) is None


def test_the_process_began_before_now_and_after_the_machine() -> None:
    clock = SystemClock()
    age = clock.monotonic() - process_start_time(clock)
    assert 0 < age < 24 * 3600
    assert age > time.thread_time() - 1, "no thread works longer than its process is there"
