"""Where the time between a process's start and its first optimizer step goes."""

from __future__ import annotations

from trainyard_crds.report import Stage

IMPORTS, RUN_DIRECTORY, FIRST_STEP = "imports", "run directory", "first step"
_PARTS = {
    Stage.DOWNLOADING: "model and dataset files",
    Stage.PREPARING_DATA: "data",
    Stage.LOADING_MODEL: "model",
    Stage.EVALUATING: "first evaluation",
    Stage.TRAINING: FIRST_STEP,
}


class StartupTimer:
    """A stop watch with one hand: every moment belongs to one part.

    Args:
        began: Monotonic seconds of the process's start.
    """

    def __init__(self, began: float) -> None:
        self._began = self._since = began
        self._part = IMPORTS
        self._seconds: dict[str, float] = {}
        self._done = False

    def enter(self, part: str, at: float) -> None:
        """From this moment (monotonic seconds) on, time belongs to another part."""
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + at - self._since
        self._part, self._since = part, at

    def stage(self, stage: Stage, at: float) -> None:
        """The run does something else from this moment on."""
        self.enter(_PARTS.get(stage, str(stage)), at)

    def first_step_done(self, at: float) -> str | None:
        """What took how long, in a sentence; None after the first time."""
        if self._done:
            return None
        self._done = True
        self.enter(FIRST_STEP, at)
        parts = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in self._seconds.items())
        return f"The first step was done {at - self._began:.2f} s after the process began: {parts}."
