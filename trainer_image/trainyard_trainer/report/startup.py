"""Breakdown of the time between the start of the process and its first optimizer step."""

from __future__ import annotations

from trainyard_crds.report import Stage

IMPORTS, RUN_DIRECTORY, FIRST_STEP = "imports", "run directory", "first step"
_PHASES = {
    Stage.DOWNLOADING: "model and dataset files",
    Stage.PREPARING_DATA: "data",
    Stage.LOADING_MODEL: "model",
    Stage.EVALUATING: "first evaluation",
    Stage.TRAINING: FIRST_STEP,
}


class StartupTimer:
    """Attributes the startup time to consecutive phases.

    Args:
        started_at: Start of the process, in monotonic seconds.
    """

    def __init__(self, started_at: float) -> None:
        self._started_at = self._entered_at = started_at
        self._phase = IMPORTS
        self._seconds: dict[str, float] = {}
        self._done = False

    def enter(self, phase: str, at: float) -> None:
        """Enter a phase at a time in monotonic seconds."""
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + at - self._entered_at
        self._phase, self._entered_at = phase, at

    def stage(self, stage: Stage, at: float) -> None:
        """Enter the phase of a stage."""
        self.enter(_PHASES.get(stage, str(stage)), at)

    def first_step_done(self, at: float) -> str | None:
        """Return the breakdown as a sentence; None after the first call."""
        if self._done:
            return None
        self._done = True
        self.enter(FIRST_STEP, at)
        phases = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in self._seconds.items())
        return f"The first step finished {at - self._started_at:.2f} s after the process start: {phases}."
