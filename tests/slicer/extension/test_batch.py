"""Jobs one after another (VoxMambaLib/Batch.py)."""
import sys

import support
from VoxMambaLib.Batch import Batch
from VoxMambaLib.Runner import Outcome


class Jobs:
    """Starts jobs by name: "now" ends at once, "never" only when cancelled, "raise" raises, "later" when later() is called."""

    def __init__(self, jobs):
        self.started, self.outcomes, self.ends, self.waiting = [], [], [], None
        self.batch = Batch(jobs, self.start, lambda index, outcome: self.outcomes.append((index, outcome.state)), self.ends.append)

    def start(self, job, on_end):
        self.started.append(job)
        if job == "raise":
            raise ValueError("no such volume")
        if job == "now":
            on_end(Outcome("done"))
            return None
        self.waiting = on_end
        return self

    def cancel(self):
        self.later("cancelled")

    def later(self, state="done"):
        waiting, self.waiting = self.waiting, None
        waiting(Outcome(state))


def test_order_and_outcomes():
    jobs = Jobs(["later", "raise", "now", "later"])
    jobs.batch.start()
    assert jobs.started == ["later"] and jobs.batch.running
    jobs.later("failed")
    assert jobs.started == ["later", "raise", "now", "later"] and jobs.batch.running and not jobs.ends
    jobs.later()
    assert jobs.outcomes == [(0, "failed"), (1, "failed"), (2, "done"), (3, "done")]
    assert not jobs.batch.running and len(jobs.ends) == 1
    assert jobs.ends[0][1].message == "no such volume"


def test_cancel_ends_the_one_at_hand_and_begins_no_other():
    jobs = Jobs(["now", "later", "now", "raise"])
    jobs.batch.start()
    jobs.batch.cancel()
    assert jobs.started == ["now", "later"]
    assert [state for _, state in jobs.outcomes] == ["done", "cancelled", "cancelled", "cancelled"] and len(jobs.ends) == 1


def test_thousands_that_end_at_once_are_no_deep_stack():
    for job in ("now", "raise"):
        jobs = Jobs([job] * (10 * sys.getrecursionlimit()))
        jobs.batch.start()
        assert len(jobs.outcomes) == 10 * sys.getrecursionlimit() and len(jobs.ends) == 1


def test_nothing_to_do_ends_at_once():
    jobs = Jobs([])
    jobs.batch.start()
    assert jobs.ends == [[]] and not jobs.batch.running


def test_an_end_that_is_told_twice_counts_once():
    jobs = Jobs(["later", "later"])
    jobs.batch.start()
    first = jobs.waiting
    jobs.later()
    first(Outcome("failed"))
    assert jobs.outcomes == [(0, "done")] and jobs.batch.running
