"""Signals while a DICOM SEG is written."""
import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import PROGRAM, environment, files

pytest.importorskip("pydicom")
from test_dicom import write_series  # noqa: E402

HELPER = os.path.join(os.path.dirname(PROGRAM), "../lib/voxmamba/voxmamba-dicom")

# In the helper's place: counts its starts, and the one whose number is asked for works for ever.
COUNTING = """#!/bin/sh
echo start >> {folder}/starts
if [ "$(wc -l < {folder}/starts)" = "$STOP_AT" ]; then touch {folder}/here; exec sleep 600; fi
exec {helper}
"""


@pytest.mark.skipif(not os.path.exists(HELPER), reason="this build does not read DICOM")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_header_is_made(model, tmp_path, number, code):
    """The last helper of a run makes the object's header: all is computed, and nothing is written yet."""
    write_series(tmp_path / "in")
    program, helper = tmp_path / "bin/voxmamba", tmp_path / "lib/voxmamba/voxmamba-dicom"
    for path in (program, helper):
        path.parent.mkdir(parents=True)
    shutil.copy2(PROGRAM, program)
    helper.write_text(COUNTING.format(folder=tmp_path, helper=os.path.realpath(HELPER)))
    helper.chmod(0o755)
    out = tmp_path / "out"
    words = [program, "segment", tmp_path / "in", "-m", model, "-o", f"{out}/", "--format", "dcmseg"]

    def started(stop_at):
        (tmp_path / "starts").unlink(missing_ok=True)
        return subprocess.Popen(words, env=environment(STOP_AT=stop_at), stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    whole = started(0)
    assert whole.communicate(timeout=200)[1] is not None and whole.returncode == 0
    assert files(out) == ["in.dcm", "in.json"]
    shutil.rmtree(out)

    stopped = started(len((tmp_path / "starts").read_text().splitlines()))
    until = time.monotonic() + 200
    while not (tmp_path / "here").exists():
        assert stopped.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    stopped.send_signal(number)
    said = stopped.communicate(timeout=60)[1]
    assert stopped.returncode == code and "stopped by a signal" in said.splitlines()[-1], said
    assert files(out) == []
