"""Many cases: discovery, names, shards, jobs, resume, overwrite, one bad case among good ones."""
import json
import os
import signal
import subprocess
import time

import jsonschema
import numpy as np
import pytest
from conftest import ROOT, command, environment, files, load, run, save


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for i, name in enumerate(["a", "b_0000", "c", "d", "e"]):
        save(folder / f"{name}.nii.gz", i)
    (folder / "notes.txt").write_text("not a case")
    (folder / ".hidden.nii.gz").write_text("not a case")
    return folder


NAMES = ["a", "b", "c", "d", "e"]


def both(names):
    return sorted(n + ending for n in names for ending in (".json", ".nii.gz", ".tsv"))


def masks(folder):
    return {n: load(folder / n)[0].tobytes() for n in files(folder) if n.endswith(".nii.gz")}


def segment(scans, model, out, *args, code=0):
    result = run("segment", scans, "-m", model, "-o", out, *args)
    assert result.code == code, (result.code, result.err)
    return result


@pytest.fixture(scope="module")
def done(scans, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "new" / "out"
    segment(scans, model, out)
    return out


def test_folder(done, scans):
    assert files(done) == both(NAMES)
    for name in NAMES:
        source = "b_0000" if name == "b" else name
        assert load(done / f"{name}.nii.gz")[0].shape == load(scans / f"{source}.nii.gz")[0].shape


def test_jobs_give_the_same_bits(done, scans, model, tmp_path):
    segment(scans, model, tmp_path / "out", "--jobs", 3, "--threads", 4)
    assert masks(tmp_path / "out") == masks(done)


def test_shards_cover_all_once(done, scans, model, tmp_path):
    seen = []
    for i in (1, 2, 3):
        segment(scans, model, tmp_path / "out", "--shard", f"{i}/3", "--report", tmp_path / f"r{i}.json")
        report = json.load(open(tmp_path / f"r{i}.json"))
        seen += [c["case"] for c in report["cases"]]
        assert report["summary"]["found"] == 5
    assert sorted(seen) == [1, 2, 3, 4, 5]
    assert masks(tmp_path / "out") == masks(done)


def test_shard_without_a_case(scans, model, tmp_path):
    result = segment(scans, model, tmp_path / "out", "--shard", "7/7")
    assert "no case" in result.err


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/2x"])
def test_bad_shards(scans, model, tmp_path, shard):
    run("segment", scans, "-m", model, "-o", tmp_path / "o", "--shard", shard).error_line(1)
    assert files(tmp_path) == []


def test_existing_output_is_refused(scans, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "c.nii.gz").write_bytes(b"mine")
    line = run("segment", scans, "-m", model, "-o", out).error_line(4)
    assert "c.nii.gz" in line and "--overwrite" in line
    assert files(out) == ["c.nii.gz"] and (out / "c.nii.gz").read_bytes() == b"mine"
    segment(scans, model, out, "--overwrite")
    assert files(out) == both(NAMES) and (out / "c.nii.gz").read_bytes() != b"mine"


def test_foreign_json_is_not_replaced(model, tmp_path):
    save(tmp_path / "p.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "p.json").write_text('{"Manufacturer": "x"}')
    line = run("segment", tmp_path / "p.nii.gz", "-m", model, "-o", tmp_path / "out").error_line(4)
    assert "p.json" in line
    assert files(tmp_path / "out") == ["p.json"]


def stamps(folder):
    return {n: os.stat(folder / n).st_mtime_ns for n in files(folder)}


def test_resume_does_only_what_is_not_confirmed(done, scans, model, tmp_path):
    out = tmp_path / "out"
    segment(scans, model, out)
    before = stamps(out)
    result = segment(scans, model, out, "--resume", "--report", tmp_path / "r.json", "--stats", tmp_path / "s.json")
    assert stamps(out) == before and result.out.count("done before") == 5
    report = json.load(open(tmp_path / "r.json"))
    jsonschema.validate(report, json.load(open(os.path.join(ROOT, "docs/report.schema.json"))))
    assert report["summary"]["skipped"] == 5 and report["summary"]["done"] == 0
    assert len(json.load(open(tmp_path / "s.json"))["cases"]) == 5  # also of cases that an earlier run did

    # A cut mask, a missing mask, a missing sidecar, another input: each is done again, the rest is not.
    data = (out / "a.nii.gz").read_bytes()
    (out / "a.nii.gz").write_bytes(data[:-1])
    (out / "b.nii.gz").unlink()
    (out / "c.json").unlink()
    segment(scans, model, out, "--resume")
    after = stamps(out)
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        assert after[name] != before[name]
    for name in ("d.nii.gz", "e.nii.gz", "d.json", "e.json"):
        assert after[name] == before[name]
    assert masks(out) == masks(done)


def test_resume_sees_other_options_and_models(scans, model, tmp_path):
    import tiny_model
    out = tmp_path / "out"
    segment(scans / "a.nii.gz", model, out)
    first = stamps(out)
    segment(scans / "a.nii.gz", model, out, "--resume", "--threads", 1)
    assert stamps(out) == first
    segment(scans / "a.nii.gz", model, out, "--resume", "--step", "1")
    second = stamps(out)
    assert second["a.nii.gz"] != first["a.nii.gz"]
    other = tiny_model.write(str(tmp_path / "other.safetensors"), seed=9)
    segment(scans / "a.nii.gz", other, out, "--resume", "--step", "1")
    assert stamps(out)["a.nii.gz"] != second["a.nii.gz"]


def test_resume_sees_the_data_file_of_a_header(model, tmp_path):
    scan, out = tmp_path / "scan.mhd", tmp_path / "out"
    values = np.random.default_rng(3).integers(0, 1000, (20, 24, 22)).astype("<i2")
    scan.write_text("ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
                    "DimSize = 22 24 20\nElementSpacing = 1 1 1\nOffset = 0 0 0\nElementType = MET_SHORT\n"
                    "ElementDataFile=x.raw\n")
    (tmp_path / "x.raw").write_bytes(values.tobytes())
    options = ("--format", "nii.gz")
    segment(scan, model, out, *options)
    first = stamps(out)
    segment(scan, model, out, *options, "--resume")
    assert stamps(out) == first
    (tmp_path / "x.raw").write_bytes(values[::-1].tobytes())  # the header stays as it was
    segment(scan, model, out, *options, "--resume")
    again = stamps(out)
    assert sorted(again) == ["scan.json", "scan.nii.gz", "scan.tsv"]
    assert all(again[name] != first[name] for name in first)


def test_resume_and_overwrite_contradict(scans, model, tmp_path):
    run("segment", scans, "-m", model, "-o", tmp_path / "o", "--resume", "--overwrite").error_line(1)


def test_two_cases_of_one_name(model, tmp_path):
    for sub in ("x", "y"):
        (tmp_path / sub).mkdir()
        save(tmp_path / sub / "p.nii.gz")
    line = run("segment", tmp_path / "x", tmp_path / "y", "-m", model, "-o", tmp_path / "o").error_line(1)
    assert "p.nii.gz" in line
    save(tmp_path / "x" / "p.nii")
    run("segment", tmp_path / "x", "-m", model, "-o", tmp_path / "o").error_line(1)
    assert not (tmp_path / "o").exists()


def test_outputs_of_two_cases_collide(tmp_path):
    """Label b_c of case a and label c of case a_b are both a_b_c.nii.gz."""
    import tiny_model
    recipe = tiny_model.recipe()
    recipe["labels"][0]["name"], recipe["labels"][1]["name"] = "b_c", "c"
    model = tiny_model.write(str(tmp_path / "collide.safetensors"), recipe)
    (tmp_path / "in").mkdir()
    for name in ("a", "a_b"):
        save(tmp_path / "in" / f"{name}.nii.gz")
    before = files(tmp_path)
    for more in ((), ("--overwrite",), ("--resume",), ("--dry-run",), ("--shard", "1/2")):
        line = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "o", "--split", *more).error_line(1)
        assert "o/a_b_c.nii.gz: " in line and "'a'" in line and "'a_b'" in line
    assert files(tmp_path) == before
    segment(tmp_path / "in", model, tmp_path / "o", "--split", "--labels", "c")


@pytest.mark.parametrize("shard", ["1/1", "1/2", "2/2"])
def test_no_output_replaces_an_input_of_another_case(model, tmp_path, shard):
    for name in ("a", "a_anterior"):
        save(tmp_path / f"{name}.nii.gz")
    before = {n: (tmp_path / n).read_bytes() for n in files(tmp_path)}
    line = run("segment", tmp_path, "-m", model, "-o", tmp_path, "--split", "--overwrite", "--shard",
               shard).error_line(1)
    assert "a_anterior.nii.gz: " in line and "'a'" in line and "'a_anterior'" in line and "input" in line
    assert {n: (tmp_path / n).read_bytes() for n in files(tmp_path)} == before


def test_many_cases_into_one_file(scans, model, tmp_path):
    run("segment", scans, "-m", model, "-o", tmp_path / "o.nii.gz").error_line(1)


def test_numbers_that_are_no_channels(model, tmp_path):
    """scan_2019 and scan_2020 are two cases; only a group from _0000 on is one."""
    for year in (2019, 2020):
        save(tmp_path / "in" / f"scan_{year}.nii.gz") if (tmp_path / "in").exists() else None
    (tmp_path / "in").mkdir()
    for year in (2019, 2020):
        save(tmp_path / "in" / f"scan_{year}.nii.gz", year)
    segment(tmp_path / "in", model, tmp_path / "o")
    assert files(tmp_path / "o") == both(["scan_2019", "scan_2020"])


def test_missing_channel_number(model2, tmp_path):
    (tmp_path / "in").mkdir()
    for k in (0, 2):
        save(tmp_path / "in" / f"p_000{k}.nii.gz", k)
    line = run("segment", tmp_path / "in", "-m", model2, "-o", tmp_path / "o").error_line(2)
    assert "0001" in line


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_case_does_not_stop_the_others(scans, model, tmp_path, jobs):
    mixed = tmp_path / "Doe^John"
    mixed.mkdir()
    for name in ("a", "c", "e"):
        os.link(scans / f"{name}.nii.gz", mixed / f"{name}.nii.gz")
    (mixed / "b.nii.gz").write_bytes((scans / "d.nii.gz").read_bytes()[:3000])
    result = run("segment", mixed, "-m", model, "-o", tmp_path / "out", "--report", tmp_path / "r.json", "--jobs", jobs)
    assert result.code == 6
    lines = [l for l in result.err.splitlines() if not l.endswith("done)")]
    assert len(lines) == 2 and "Doe^John/b.nii.gz: " in lines[0] and "1 of 4" in lines[1]
    assert files(tmp_path / "out") == both(["a", "c", "e"])
    text = open(tmp_path / "r.json").read()
    assert "Doe" not in text and "b.nii" not in text
    report = json.loads(text)
    jsonschema.validate(report, json.load(open(os.path.join(ROOT, "docs/report.schema.json"))))
    assert [c["status"] for c in report["cases"]] == ["done", "failed", "done", "done"]
    assert report["cases"][1]["error"]["code"] == 2


def test_a_missing_file_among_many(scans, model, tmp_path):
    result = run("segment", scans / "a.nii.gz", scans / "gone.nii.gz", "-m", model, "-o", tmp_path / "out")
    assert result.code == 6 and "gone.nii.gz: " in result.err
    assert files(tmp_path / "out") == both(["a"])


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_case(model, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("no case")
    line = run("segment", tmp_path / name, "-m", model, "-o", tmp_path / "out").error_line(2)
    assert name in line
    assert not (tmp_path / "out").exists() or name == "missing"


def test_dry_run_of_a_batch(scans, model, tmp_path):
    result = segment(scans, model, tmp_path / "out", "--dry-run")
    assert result.out.count("MB peak") == 5 and not (tmp_path / "out").exists()


def test_dry_run_with_a_bad_case(scans, model, tmp_path):
    result = run("segment", scans / "a.nii.gz", scans / "gone.nii.gz", "-m", model, "-o", tmp_path / "out", "--dry-run")
    assert result.code == 6 and result.out.count("MB peak") == 1
    assert "1 of 2 cases failed" in result.err and "nothing is written" in result.err
    assert "are written" not in result.err and files(tmp_path) == []


def big_batch(tmp_path, count=24):
    folder = tmp_path / "in"
    folder.mkdir()
    first = save(folder / "c000.nii.gz", 3, shape=(40, 44, 40))
    for i in range(1, count):
        os.link(first, folder / f"c{i:03d}.nii.gz")
    return folder


def start(scans, model, out, *args):
    return subprocess.Popen(command("segment", scans, "-m", model, "-o", out, *args), env=environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_masks(out, count, process):
    end = time.time() + 60
    while time.time() < end and process.poll() is None:
        if out.exists() and len([n for n in os.listdir(out) if n.endswith(".nii.gz") and n[0] != "."]) >= count:
            return
        time.sleep(0.002)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129),
                                          (signal.SIGKILL, -9)])
@pytest.mark.parametrize("jobs", [1, 2])
def test_signals_leave_nothing_half_written(model, tmp_path, number, code, jobs):
    scans, out = big_batch(tmp_path), tmp_path / "out"
    process = start(scans, model, out, "--step", "0.34", "--jobs", str(jobs))
    wait_for_masks(out, 2, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, (process.returncode, err)
    written = [n for n in files(out) if n.endswith(".nii.gz") and n[0] != "."]
    assert 2 <= len(written) < 24
    for name in written:
        assert load(out / name)[0].shape == (40, 44, 40)
        assert (out / name.replace(".nii.gz", ".json")).exists()
    if code > 0:
        assert not [n for n in files(out) if n.startswith(".")]
        assert "stopped by a signal" in err.splitlines()[-1]
    # The next run sweeps and goes on; what was done is not done again.
    before = stamps(out)
    host = 2166136261  # FNV-1a of the host's name, as src/base/out_file.c marks its temporaries
    for byte in os.uname().nodename.encode():
        host = (host ^ byte) * 16777619 % 2**32
    (out / f".c000.nii.gz.voxmamba-{host:08x}-4194304999-0.tmp.nii.gz").write_bytes(b"left by a run that is gone")
    segment(scans, model, out, "--resume", "--step", "0.34", "--shard", "1/4")
    assert not [n for n in files(out) if n.startswith(".")]
    after = stamps(out)
    for name in written:
        assert after[name] == before[name]


def test_nohup_is_heard(model, tmp_path):
    scans, out = big_batch(tmp_path, 6), tmp_path / "out"
    process = subprocess.Popen(["nohup", *command("segment", scans, "-m", model, "-o", out)], env=environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_masks(out, 1, process)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert files(out) == both([f"c{i:03d}" for i in range(6)])


def test_disk_full(model, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        scan = save(tmp_path / "s.nii.gz", shape=(48, 48, 48))
        result = run("segment", scan, "-m", model, "-o", small / "m.nii", "--step", "1")
        line = result.error_line(4)
        assert "m.nii" in line and "space" in line
        assert files(small) == []
        result = run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", "--step", "1", "--report",
                     small / "no" / "r.json")
        result.error_line(4)
        assert files(tmp_path) == ["s.nii.gz", "small"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_outputs_survive_a_full_disk_at_the_sidecar(model, tmp_path):
    """A mask is never visible without its sidecar."""
    save(tmp_path / "s.nii.gz")
    out = tmp_path / "out"
    segment(tmp_path / "s.nii.gz", model, out)
    sidecar, mask = os.stat(out / "s.json").st_mtime_ns, os.stat(out / "s.nii.gz").st_ctime_ns
    assert sidecar <= mask
    assert np.unique(load(out / "s.nii.gz")[0]).size > 1
