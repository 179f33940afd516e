"""Runs that succeed: what Slicer gets from them, and in which surroundings."""
import csv
import json
import math
import os
import re
import stat
import subprocess
import time

import nibabel
import numpy as np
import pytest
from conftest import save
from driver import MODULE, arguments, call, drive, environment, returned
from volumes import files

PROGRAM = os.environ.get("VOXMAMBA_PROGRAM", os.path.join(os.path.dirname(MODULE), "../cli/voxmamba"))


def voxmamba(*args):
    done = subprocess.run([PROGRAM, "segment", "-q", *map(str, args), "--device", "cpu"], capture_output=True, text=True,
                          env=environment())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("values, options", [
    ({}, ()),
    ({"tta": True, "step": 0.25}, ("--tta", "--step", "0.25")),
    ({"labels": "posterior"}, ("--labels", "posterior")),
    ({"keepLargest": True}, ("--keep-largest",)),
    ({"removeSmall": 40}, ("--remove-small", "40")),
    ({"precision": "fp32", "threads": 1, "memory": 3.5}, ("--precision", "fp32", "--threads", "1", "--memory", "3.5G")),
])
def test_the_same_bytes_as_the_program(scan, out, model, values, options):
    result = drive(scan, out / "m.seg.nrrd", model=model, **values)
    assert (result.code, result.err) == (0, "")
    assert files(out) == ["m.seg.nrrd"]  # neither CASE.json nor a temporary
    voxmamba(scan, "-m", model, "-o", out / "p.seg.nrrd", *options)
    assert (out / "m.seg.nrrd").read_bytes() == (out / "p.seg.nrrd").read_bytes()
    result.check_protocol()


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_other_formats_leave_one_file_too(scan, out, model, ending):
    assert drive(scan, out / ("m" + ending), model=model).code == 0
    assert files(out) == ["m" + ending]


def test_the_only_model_needs_no_name(scan, out, model):
    env = environment(VOXMAMBA_MODELS=os.path.dirname(model))
    # The shipped models fit this small volume no better: by its name the tiny one is found, too.
    assert drive(scan, out / "m.seg.nrrd", returns=out / "r", model="tiny", env=env).code == 0
    assert returned(out / "r")["resultModel"] == "tiny"
    # Empty values are defaults.
    result = call("--model", "tiny", "--device", "cpu", "--labels", "", "--precision", "", "--threads", "", "--step", "",
                  "--statistics", "", scan, out / "n.seg.nrrd", env=env)
    assert result.code == 0, result.err
    assert (out / "m.seg.nrrd").read_bytes() == (out / "n.seg.nrrd").read_bytes()


def test_progress(out, tmp_path, model):
    """Many tiles: lines come as they happen, not more than twenty a second, and never fall."""
    scan = save(tmp_path / "large.nii", shape=(56, 56, 56))
    process = subprocess.Popen([MODULE, *arguments({"device": "cpu", "model": model, "tta": True, "threads": 1,
                                                    "inputVolume": scan, "outputSegmentation": out / "m.seg.nrrd"})],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    seen = [(time.monotonic(), line) for line in process.stdout]
    assert process.wait() == 0, process.stderr.read()
    times = [t for t, line in seen if "<filter-progress>" in line]
    values = [float(re.sub("<.*?>", "", line)) for _, line in seen if "<filter-progress>" in line]
    assert values == sorted(values) and values[0] == 0 and values[-1] == 1
    assert len(values) <= 3 + 10 * (times[-1] - times[0]) + 1
    words = [re.sub("<.*?>", "", line).strip() for _, line in seen if "<filter-comment>" in line]
    assert words == ["Starting", "Checking the volume", "Reading the volume", "Preparing the volume", "Segmenting",
                     "Cleaning up", "Writing the result"]


def table(path):
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f, delimiter="\t" if str(path).endswith(".tsv") else ","))


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_statistics_and_what_is_returned(scan, out, model, tmp_path, ending):
    result = drive(scan, out / "m.seg.nrrd", returns=out / "m.params", model=model, statistics=out / f"s.{ending}")
    assert (result.code, result.err) == (0, "")
    assert files(out) == ["m.params", "m.seg.nrrd", f"s.{ending}"]
    voxmamba(scan, "-m", model, "-o", tmp_path / "p.seg.nrrd", "--stats", tmp_path / "s.json")
    labels = json.load(open(tmp_path / "s.json"))["cases"][0]["labels"]
    rows = table(out / f"s.{ending}")
    assert list(rows[0]) == ["label", "value", "voxels", "ml", "mean", "sd"]
    assert [(r["label"], int(r["value"]), int(r["voxels"])) for r in rows] == \
        [(l["name"], l["value"], l["voxels"]) for l in labels]
    for row, label in zip(rows, labels):
        for key in ("ml", "mean", "sd"):  # the JSON's numbers may lack the last bit
            assert math.isclose(float(row[key]), label[key], rel_tol=4e-16), (row, label)
    values = returned(out / "m.params")
    assert list(values) == ["resultModel", "resultDevice", "resultSeconds", "resultVolumes", "resultWarnings"]
    assert values["resultModel"] == "tiny" and values["resultDevice"].startswith("CPU")
    assert float(values["resultSeconds"]) > 0 and values["resultWarnings"] == ""
    assert values["resultVolumes"] == ", ".join(f"{l['name']} {l['ml']:.3f} ml" for l in labels)


def test_labels_that_are_not_there(scan, out, model):
    """All components are removed: an empty result, said as a warning; no mean of nothing."""
    result = drive(scan, out / "m.seg.nrrd", returns=out / "r", model=model, removeSmall=1e6, statistics=out / "s.tsv")
    assert result.code == 0
    assert result.err == f"VoxMambaSegment: {scan}: warning: no label was found: the mask is empty\n"
    assert returned(out / "r")["resultWarnings"] == "no label was found: the mask is empty"
    assert [(r["voxels"], r["ml"], r["mean"], r["sd"]) for r in table(out / "s.tsv")] == [("0", "0", "nan", "nan")] * 2


def test_names_in_tables(scan, out, tmp_path):
    import tiny_model
    names = ['left, "upper"', "tab\tand\nline", "gr\u00f6\u00dfe"]
    recipe = tiny_model.recipe(labels=3)
    for label, name in zip(recipe["labels"], names):
        label["name"] = name
    model = tiny_model.write(str(tmp_path / "odd.safetensors"), recipe)
    for ending in ("csv", "tsv"):
        result = drive(scan, out / "m.seg.nrrd", returns=out / "r", model=model, statistics=out / f"s.{ending}")
        if result.code == 3:  # a model's file may not hold such a name
            names[1] = recipe["labels"][1]["name"] = "tab and line"
            model = tiny_model.write(str(tmp_path / "odd.safetensors"), recipe)
            result = drive(scan, out / "m.seg.nrrd", returns=out / "r", model=model, statistics=out / f"s.{ending}")
        assert result.code == 0, result.err
        assert [r["label"].split() for r in table(out / f"s.{ending}")] == [n.split() for n in names]
        assert len(open(out / "r", encoding="utf-8").read().splitlines()) == 5


def test_the_output_is_replaced(scan, out, model):
    for name in ("m.seg.nrrd", "s.tsv", "r"):
        (out / name).write_text("of an earlier run")
    (out / "m.json").write_text("the user's own")
    result = drive(scan, out / "m.seg.nrrd", returns=out / "r", model=model, statistics=out / "s.tsv")
    assert result.code == 0, result.err
    assert files(out) == ["m.json", "m.seg.nrrd", "r", "s.tsv"]
    assert (out / "m.json").read_text() == "the user's own"
    assert all("earlier" not in (out / n).read_bytes().decode("latin-1") for n in ("m.seg.nrrd", "s.tsv", "r"))


def test_where_slicer_may_be(scan, out, model, tmp_path):
    """Its Python and its locale are in the environment, its folder is read-only, names have blanks and any letters."""
    folder = tmp_path / "R\u00f6ntgen \u65e5\u672c  (1)"
    folder.mkdir()
    there = folder / "Volume 1 \u00e4\u00f6.nii"
    there.write_bytes(scan.read_bytes())
    locked = tmp_path / "locked"
    locked.mkdir()
    for path in (folder, locked):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    env = environment(PYTHONHOME="/nowhere/python", PYTHONPATH="/nowhere", LC_ALL="de_DE.UTF-8", LANG="tr_TR.UTF-8",
                      HOME="/nowhere", TMPDIR="/nowhere", ITK_AUTOLOAD_PATH="", QT_PLUGIN_PATH="/nowhere")
    target = out / "Ergebnis \u65e5\u672c.seg.nrrd"
    result = drive(there, target, returns=out / "r \u00e4", model=model, cwd=locked, env=env, statistics=out / "t \u00e4.tsv")
    assert (result.code, result.err) == (0, "")
    result.check_protocol()
    assert files(folder) == [there.name] and files(locked) == [] and len(files(out)) == 3
    for path in (folder, locked):
        path.chmod(stat.S_IRWXU)
    assert drive(scan, out / "plain.seg.nrrd", model=model).code == 0
    assert target.read_bytes() == (out / "plain.seg.nrrd").read_bytes()
    # A relative output is the caller's, wherever that is.
    assert drive(scan, "relative.seg.nrrd", model=model, cwd=out).code == 0
    assert (out / "relative.seg.nrrd").read_bytes() == target.read_bytes()


def test_an_address_for_shared_libraries_is_ignored(scan, out, model):
    result = call("--processinformationaddress", "0x7ffe0000", "--model", model, "--device", "cpu", scan, out / "m.seg.nrrd")
    assert result.code == 0, result.err


def test_voxels_are_those_of_a_nifti_mask(scan, out, model):
    import nrrd
    assert drive(scan, out / "m.seg.nrrd", model=model).code == 0
    voxmamba(scan, "-m", model, "-o", out / "p.nii")
    voxels, header = nrrd.read(str(out / "m.seg.nrrd"))
    assert np.array_equal(voxels, np.asarray(nibabel.load(out / "p.nii").dataobj))
    assert header["Segment0_Name"] == "anterior" and header["Segment1_Name"] == "posterior"
