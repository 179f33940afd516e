"""Jobs one after another, each with its own outcome: one that fails does not stop the others."""
from .Runner import Outcome


class Batch:
    """start_job(job, on_end) starts one and gives what has cancel(), or None if the job has ended already; on_end(Outcome) comes
    once, at once or later. What start_job raises is the job's outcome."""

    def __init__(self, jobs, start_job, on_outcome, on_end):
        """on_outcome(index, Outcome) after each job, in order; on_end([Outcome]) after all."""
        self._jobs, self._start_job = list(jobs), start_job
        self._on_outcome, self._on_end = on_outcome, on_end
        self._outcomes = []
        self._current = None
        self._cancelled = self._looping = False

    @property
    def running(self):
        return len(self._outcomes) < len(self._jobs)

    def start(self):
        if not self._jobs:
            self._on_end([])
            return
        self._go_on()

    def cancel(self):
        """Ends the job at hand; those that wait are not begun and count as cancelled."""
        self._cancelled = True
        if self._current is not None:
            self._current.cancel()

    def _go_on(self):
        """Starts jobs until one is left running. A loop, not a call from on_end to on_end: a thousand volumes that are refused at
        once would be as deep a stack."""
        if self._looping:
            return
        self._looping = True
        begun = -1
        while self.running and begun < len(self._outcomes):
            begun = len(self._outcomes)
            if self._cancelled:
                self._take(begun, Outcome("cancelled"))
                continue
            self._current = None
            try:
                current = self._start_job(self._jobs[begun], lambda outcome, index=begun: self._take(index, outcome))
            except Exception as error:
                self._take(begun, Outcome("failed", str(error) or repr(error)))
                continue
            if len(self._outcomes) == begun:
                self._current = current
        self._looping = False

    def _take(self, index, outcome):
        if index != len(self._outcomes):
            return  # ended twice
        self._current = None
        self._outcomes.append(outcome)
        self._on_outcome(index, outcome)
        if not self.running:
            self._on_end(list(self._outcomes))
        else:
            self._go_on()
