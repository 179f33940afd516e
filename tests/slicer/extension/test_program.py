"""The real command-line module, driven by the extension's library (Runner.Run) as Slicer would have it."""
import csv
import os
import subprocess

import nibabel
import nrrd
import numpy as np
import pytest
import support
from VoxMambaLib.Runner import Run, Settings

QUICK = Settings(model="hippocampus", threads=2)


@pytest.fixture
def temporary(tmp_path):
    folder = tmp_path / "temp folder ü 影"
    folder.mkdir()
    return folder


def run(temporary, settings=QUICK, write_input=support.write_nrrd, take=None, during=None, **env):
    """Gives (outcome, heard). during(run, process, heard) is called after each piece of output."""
    heard, process = support.Heard(), support.Process()
    one = Run(support.SEGMENT, settings, process, support.environment(**env), "my scan", str(temporary))
    one.start(write_input, heard.event, take or heard.result, heard.end)
    while not heard.outcomes:
        process.pump()
        if during and not heard.outcomes:
            during(one, process, heard)
    assert os.listdir(temporary) == []
    return heard.outcomes[0], heard


def read_segments(path):
    """name -> mask on the sample's grid, of a .seg.nrrd of one layer."""
    data, header = nrrd.read(path)
    return {header[f"Segment{i}_Name"]: data == int(header[f"Segment{i}_LabelValue"])
            for i in range(sum(1 for key in header if key.endswith("_LabelValue")))}


def test_sample_scan(temporary, tmp_path):
    """The same voxels as the program gives for the NIfTI file, the statistics of them, and progress that ends with 1."""
    got = {}

    def take(files, returned):
        got["segments"], got["returned"] = read_segments(files.segmentation), returned
        with open(files.statistics, newline="", encoding="utf-8") as file:
            got["rows"] = list(csv.DictReader(file, delimiter="\t"))

    outcome, heard = run(temporary, take=take)
    assert (outcome.state, outcome.message) == ("done", ""), outcome
    done = subprocess.run([support.PROGRAM, "segment", support.SAMPLE, "-m", "hippocampus", "-o", tmp_path / "mask.nii.gz", "-q"],
                          env=support.environment(), check=True)
    assert done.returncode == 0
    mask = np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj)
    assert list(got["segments"]) == ["anterior", "posterior"]
    for value, name in ((1, "anterior"), (2, "posterior")):
        assert (got["segments"][name] == (mask == value)).all() and (mask == value).sum() > 500
        row = got["rows"][value - 1]
        assert (row["label"], int(row["value"]), int(row["voxels"])) == (name, value, int((mask == value).sum()))
        assert abs(float(row["mean"]) - support.sample()[0][mask == value].mean()) < 1e-3 * abs(float(row["mean"]))
    shares = heard.values("progress")
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(heard.values("comment")) >= 3
    assert got["returned"]["resultModel"] == "hippocampus" and got["returned"]["resultVolumes"].startswith("anterior ")
    assert outcome.returned == got["returned"]


def test_in_slicers_environment(temporary):
    """Slicer's launcher has set what breaks other programs; the library takes it out."""
    from VoxMambaLib.Runner import clean_environment
    home = temporary.parent / "Slicer"
    home.mkdir()
    for name in ("libc.so.6", "libm.so.6", "libz.so.1", "libstdc++.so.6", "libpreload.so"):
        (home / name).write_bytes(b"not a library")
    dirty = support.environment(SLICER_HOME=str(home), LD_LIBRARY_PATH=str(home), PYTHONHOME=str(home), LC_ALL="tr_TR.UTF-8")
    heard, process = support.Heard(), support.Process()
    one = Run(support.SEGMENT, QUICK, process, clean_environment(dirty), "v", str(temporary))
    one.start(support.write_nrrd, heard.event, heard.result, heard.end)
    process.pump_to_end()
    assert heard.outcomes[0].state == "done", heard.outcomes
    done = subprocess.run([support.SEGMENT, "--version"], env=dirty, capture_output=True, check=False)
    assert done.returncode != 0  # so it was a hostile environment


def test_only_the_wanted_segments(temporary):
    got = {}
    outcome, _ = run(temporary, Settings(model="hippocampus", labels=("posterior",)),
                     take=lambda files, returned: got.update(read_segments(files.segmentation)))
    assert outcome.state == "done" and list(got) == ["posterior"] and got["posterior"].sum() > 500


def test_cancel_at_every_stage(temporary):
    """Killed when a stage is told, nothing stays: no process, no folder, no result."""
    outcome, heard = run(temporary)
    stages = list(dict.fromkeys(heard.values("comment")))
    assert outcome.state == "done" and "Segmenting" in stages and len(stages) >= 4
    for stage in stages:
        def cancel(one, process, heard, stage=stage):
            if stage in heard.values("comment"):
                one.cancel()
                cancelled.append(process.child.pid)
        cancelled = []
        outcome, heard = run(temporary, QUICK, during=cancel)
        assert (outcome.state, heard.results) == ("cancelled", []) and cancelled, stage
        with pytest.raises(ProcessLookupError):
            os.kill(cancelled[0], 0)


def noise(shape, seed=0):
    data = np.random.default_rng(seed).normal(100, 30, shape).astype(np.int16)
    return lambda path: support.write_nrrd(path, data, np.diag([1.0, 1, 1, 1]))


@pytest.mark.parametrize("settings, write_input, words", [
    (QUICK, noise((180, 200, 180)), ["my scan", 'tick "Any field of view" under Advanced']),
    (QUICK, lambda path: support.write_nrrd(path, np.zeros((40, 50, 40), np.int16), np.eye(4)), ["my scan", "constant"]),
    (QUICK, lambda path: open(path, "w").write("NRRD0004\n\nno header"), ["my scan"]),
    (Settings(model="no_such"), support.write_nrrd, ["no_such"]),
    (Settings(model="hippocampus", labels=("nose",)), support.write_nrrd, ["nose"]),
    (Settings(model="hippocampus", device="cuda"), support.write_nrrd, ["(set the device to \"cpu\")"]),
    (Settings(model="hippocampus", precision="fp16"), support.write_nrrd, ['set the precision to "fp32" under Advanced']),
    (Settings(model="hippocampus", memory=0.01), support.write_nrrd, [" MB, 10.0 MB are allowed (raise the memory limit"]),
])
def test_errors_say_what_to_do(temporary, settings, write_input, words):
    outcome, heard = run(temporary, settings, write_input)
    assert outcome.state == "failed" and not heard.results
    assert "\n" not in outcome.message and str(temporary) not in outcome.message and "--" not in outcome.message, outcome.message
    assert not outcome.message.startswith("VoxMambaSegment")
    for word in words:
        assert word in outcome.message, outcome.message


def test_ticked_any_field_of_view_is_a_warning(temporary):
    outcome, heard = run(temporary, Settings(model="hippocampus", force=True, step=1.0), noise((50, 100, 50)))
    assert outcome.state == "done", outcome.message
    assert outcome.returned["resultWarnings"] and any("warning: " in line for line in heard.values("text"))
