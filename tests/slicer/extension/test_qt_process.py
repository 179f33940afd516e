"""VoxMambaLib/QtProcess.py with a true QProcess in a true event loop of Qt 5.15 (PyQt5; Slicer 5.6 to 5.10 have it),
and the real program. Slicer reaches Qt by PythonQt, whose way to connect the class here stands in for."""
import os
import sys
import time
import types

import pytest
import support
from PyQt5 import QtCore


class QProcess:
    """PythonQt's way to connect. Counts the processes that live."""

    CrashExit = QtCore.QProcess.CrashExit
    alive = 0

    def __init__(self):
        self._process = QtCore.QProcess()
        QProcess.alive += 1

    def __del__(self):
        QProcess.alive -= 1

    def __getattr__(self, name):
        return getattr(self._process, name)

    def _signal(self, text):
        name, values = text.rstrip(")").split("(")
        signal = getattr(self._process, name)
        return signal[int, QtCore.QProcess.ExitStatus] if values == "int,QProcess::ExitStatus" else signal

    def connect(self, signal, slot):
        self._signal(signal).connect(slot)

    def disconnect(self, signal, slot):
        self._signal(signal).disconnect(slot)


@pytest.fixture(scope="module")
def qt():
    application = QtCore.QCoreApplication.instance() or QtCore.QCoreApplication([])
    stand_in = types.ModuleType("qt")
    stand_in.QProcess, stand_in.QProcessEnvironment, stand_in.QTimer = QProcess, QtCore.QProcessEnvironment, QtCore.QTimer
    sys.modules["qt"] = stand_in
    import VoxMambaLib.QtProcess  # noqa: F401, with this qt
    yield application
    del sys.modules["qt"]


@pytest.fixture
def temporary(tmp_path):
    folder = tmp_path / "tmp ü"
    folder.mkdir()
    return folder


def run(application, temporary, program=support.SEGMENT, during=None, wait=True, **settings):
    """One run in Qt's event loop; during(run, process, heard) at every turn of it. Gives (outcome, heard)."""
    from VoxMambaLib.QtProcess import QtProcess
    from VoxMambaLib.Runner import Run, Settings
    heard, process = support.Heard(), QtProcess()
    one = Run(str(program), Settings(model="hippocampus", threads=2, **settings), process, support.environment(), "scan", str(temporary))
    one.start(support.write_nrrd, heard.event, lambda files, returned: heard.result(os.path.getsize(files.segmentation), returned), heard.end)
    assert not heard.outcomes  # the end is never told from within start
    deadline = time.monotonic() + 300
    while not heard.outcomes and wait:
        application.processEvents(QtCore.QEventLoop.WaitForMoreEvents, 100)
        assert time.monotonic() < deadline
        if during:
            during(one, process, heard)
    assert os.listdir(temporary) == []
    return heard.outcomes[0], heard


def test_a_whole_run(qt, temporary):
    outcome, heard = run(qt, temporary)
    assert (outcome.state, outcome.message) == ("done", "") and heard.results[0][0] > 500
    shares = heard.values("progress")
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0, 1) and "Segmenting" in heard.values("comment")


def test_the_loop_turns_while_the_program_works(qt, temporary):
    """The window's own events are served: here a timer's."""
    ticks, timer = [], QtCore.QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start(5)
    run(qt, temporary)
    timer.stop()
    assert len(ticks) > 20


def test_an_error(qt, temporary):
    outcome, _ = run(qt, temporary, labels=("nose",))
    assert outcome.state == "failed" and "nose" in outcome.message


def test_cancel(qt, temporary):
    outcome, heard = run(qt, temporary, during=lambda one, process, heard: "Segmenting" in heard.values("comment") and one.cancel())
    assert outcome.state == "cancelled" and not heard.results


def test_a_program_that_is_killed_from_outside(qt, temporary):
    killed = []

    def kill(one, process, heard):
        if "Segmenting" in heard.values("comment") and not killed:
            killed.append(process._process.processId())
            os.kill(killed[0], 9)
    outcome, _ = run(qt, temporary, during=kill, tta=True)
    assert outcome.state == "failed" and "memory" in outcome.message


@pytest.mark.parametrize("how", ["missing", "no permission", "no program"])
def test_a_program_that_cannot_be_started(qt, temporary, tmp_path, how):
    program = tmp_path / "program"
    if how != "missing":
        program.write_text("#!/not/there\n")
        program.chmod(0o755 if how == "no program" else 0o644)
    outcome, _ = run(qt, temporary, program)
    assert outcome.state == "failed" and "could not be started (" in outcome.message, outcome.message


def test_at_slicers_end_it_is_waited_for(qt, temporary):
    from VoxMambaLib.QtProcess import QtProcess
    from VoxMambaLib.Runner import Run, Settings
    heard, process = support.Heard(), QtProcess()
    one = Run(support.SEGMENT, Settings(threads=2), process, support.environment(), "scan", str(temporary))
    one.start(support.write_nrrd, heard.event, heard.result, heard.end)
    one.cancel()
    process.wait(5000)  # without an event loop
    assert [outcome.state for outcome in heard.outcomes] == ["cancelled"] and os.listdir(temporary) == []
    qt.processEvents()  # the end that waited in the loop is not told again
    assert len(heard.outcomes) == 1


def test_many_one_after_another_and_none_is_kept(qt, temporary):
    """Each begun from the end of the one before, as a Batch does; no QProcess outlives its run."""
    from VoxMambaLib.Batch import Batch
    from VoxMambaLib.QtProcess import QtProcess
    from VoxMambaLib.Runner import Run, Settings
    outcomes = []

    def start(labels, on_end):
        one = Run(support.SEGMENT, Settings(model="hippocampus", threads=2, labels=labels), QtProcess(), support.environment(), "scan",
                  str(temporary))
        one.start(support.write_nrrd, lambda event: None, lambda files, returned: None, on_end)
        return one

    batch = Batch([("anterior",), ("nose",), ("posterior",)], start, lambda index, outcome: outcomes.append(outcome.state), lambda _: None)
    batch.start()
    deadline = time.monotonic() + 300
    while batch.running:
        qt.processEvents(QtCore.QEventLoop.WaitForMoreEvents, 100)
        assert time.monotonic() < deadline
    assert outcomes == ["done", "failed", "done"]
    del batch
    import gc
    gc.collect()
    qt.processEvents()
    assert QProcess.alive == 0
