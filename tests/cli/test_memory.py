"""Memory: what is planned against what is taken, and what --memory does."""
import json
import os
import re

import numpy as np
import pytest
from conftest import bomb, command, environment, free_memory, load, run, save

import tiny_model

SHAPE = (256, 240, 200)
LINEAR = {"image_order": 1, "logits_order": 1, "separate_axis": "auto", "separate_axis_order": 0}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A scan whose buffers weigh more than the program, and a model for it."""
    folder = tmp_path_factory.mktemp("memory")
    value = tiny_model.recipe("wide", patch=(64, 64, 64), labels=3, resampling=LINEAR)
    model = tiny_model.write(str(folder / "wide.safetensors"), value)
    return save(folder / "scan.nii", shape=SHAPE), model


def planned(scan, model, *args):
    return json.loads(run("info", scan, "--plan", "-m", model, "--json", "--step", 1, *args).out)["plan"]


def segment(scan, model, out, *args):
    """The report's case."""
    report = out.with_suffix(".report")
    result = run("segment", scan, "-m", model, "-o", out, "--report", report, "--overwrite", "--step", 1, *args)
    assert result.code == 0, result.err
    return json.loads(report.read_text())["cases"][0]


@pytest.fixture(scope="module")
def plain(case, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "mask.nii"
    return out, segment(*case, out)


def sanitized():
    return b"__asan_init" in open(command()[0], "rb").read()


@pytest.mark.skipif(sanitized(), reason="the sanitizer's own memory counts")
def test_plan_is_the_peak(case, plain, tmp_path):
    plan, real = planned(*case), plain[1]["peak_memory_bytes"]
    print(plan, real)
    assert 0.97 * real < plan["peak_bytes"] < 1.05 * real
    small = planned(*case, "--memory", plan["peak_bytes"] - 2000000)
    real = segment(*case, tmp_path / "small.nii", "--memory", plan["peak_bytes"] - 2000000)["peak_memory_bytes"]
    print(small, real)
    image = 4 * np.prod(SHAPE)
    assert small["peak_bytes"] < plan["peak_bytes"] - 0.9 * image
    assert 0.97 * real < small["peak_bytes"] < 1.05 * real


# What changes a plan: classes, the spacing (resampling both ways, with and without a buffer between), mirrored passes,
# what is written, and whether the image stays. A volume of a whole number of patches, so that few tiles are enough.
WAYS = {
    "as it is": ({}, (), False),
    "used up": ({}, (), True),
    "many classes": ({"labels": 24}, (), False),
    "many classes, used up": ({"labels": 24}, (), True),
    "coarse": ({"spacing": (2.0, 2.2, 2.0)}, (), False),
    "coarse, used up, split": ({"spacing": (2.0, 2.2, 2.0)}, ("--split",), True),
    "thick slices": ({"spacing": (1.0, 2.2, 2.0)}, (), False),
    "fine": ({"spacing": (0.8, 0.9, 0.8), "labels": 4}, (), False),
    "turned": ({"orientation": "RAS", "labels": 4}, (), False),
    "foreground": ({"foreground": True}, (), False),
    "mirrored": ({"labels": 4, "mirror_axes": [2]}, ("--tta",), False),
    "probabilities": ({"labels": 24}, ("--probabilities",), False),
    "preview and split": ({}, ("--preview", "--split"), False),
}


@pytest.mark.skipif(sanitized(), reason="the sanitizer's own memory counts")
@pytest.mark.parametrize("way", WAYS)
def test_every_plan_is_the_peak(case, tmp_path, way):
    """Within 10 % of the peak, and of what the case adds to the program."""
    changes, options, used_up = WAYS[way]
    changes = dict(changes)
    foreground = changes.pop("foreground", False)
    value = tiny_model.recipe("way", patch=(64, 64, 64), **{"labels": 3, "resampling": LINEAR, **changes})
    if foreground:
        value["channels"][0]["normalisation"]["kind"] = "zscore_nonzero"
    model = tiny_model.write(str(tmp_path / "way.safetensors"), value)
    options = [*options, "--format", "nii"]

    def peak_planned(*args):
        out = run("segment", case[0], "-m", model, "-o", tmp_path / "out", "--dry-run", "--step", 1, *options, *args).out
        return 1e6 * float(re.search(r"\(([\d.]+) MB peak", out).group(1))

    want = peak_planned()
    if used_up:
        options += ["--memory", int(want - 2e6)]
        smaller = peak_planned()
        assert smaller < want - 2e6
        want = smaller
    result = run("segment", case[0], "-m", model, "-o", tmp_path / "out", "--report", tmp_path / "r", "--step", 1, *options)
    assert result.code == 0, result.err
    real = json.loads((tmp_path / "r").read_text())["cases"][0]["peak_memory_bytes"]
    program = planned(*case)["program_bytes"]
    print(f"{way}: planned {want / 1e6:.1f} MB, real {real / 1e6:.1f} MB, program {program / 1e6:.1f} MB")
    assert abs(want - real) < 0.1 * (real - program)


@pytest.mark.skipif(sanitized(), reason="the sanitizer's own memory counts")
def test_a_limit_changes_no_result(case, plain, tmp_path):
    limit = planned(*case)["peak_bytes"] - 2000000
    out = tmp_path / "mask.nii"
    segment(*case, out, "--memory", limit, "--stats", tmp_path / "s.json", "--preview")
    assert out.read_bytes() == plain[0].read_bytes()
    assert (tmp_path / "mask.png").stat().st_size > 1000
    want = json.loads(plain[0].with_suffix(".json").read_text())["labels"]
    assert json.loads((tmp_path / "mask.json").read_text())["labels"] == want
    assert json.loads((tmp_path / "s.json").read_text())["cases"][0]["labels"] == want
    assert all(label["sd"] > 0 for label in want)


def test_too_little_is_exit_5_with_both_numbers(case, tmp_path):
    scan, model = case
    for verb in ((), ("--dry-run",)):
        out = tmp_path / "mask.nii.gz"
        line = run("segment", scan, "-m", model, "-o", out, "--memory", "140M", *verb).error_line(5)
        need, room = re.search(r"([\d.]+) GB of memory are needed at the least, ([\d.]+) GB are allowed", line).groups()
        assert float(room) == 0.14 < float(need)
        assert not out.exists()
    assert "bytes, 1000000 are allowed" in run("segment", scan, "-m", model, "-o", out, "--memory", "1M").error_line(5)


@pytest.mark.parametrize("words", ["free", "allowed"])
def test_what_a_small_file_claims_is_checked_before_it_is_read(case, tmp_path, words):
    scan = bomb(tmp_path / "bomb.nii.gz", free_memory() // 2)  # as floats, twice what is free
    limit = () if words == "free" else ("--memory", "4G")
    line = run("segment", scan, "-m", case[1], "-o", tmp_path / "mask.nii.gz", "--force", *limit).error_line(5)
    need, room = re.search(r"([\d.]+) GB of memory are needed at the least, ([\d.]+) GB are " + words, line).groups()
    assert float(need) > float(room)
    assert not (tmp_path / "mask.nii.gz").exists()


def test_what_no_file_of_its_size_can_hold_is_invalid(case, tmp_path):
    scan = bomb(tmp_path / "bomb.nii.gz", 1e9)
    os.truncate(scan, 900000)
    line = run("segment", scan, "-m", case[1], "-o", tmp_path / "mask.nii.gz").error_line(2)
    assert "900000 bytes cannot hold its voxels" in line


@pytest.mark.parametrize("text", ["", "G", "4X", "-1G", "4GG", "1e30", "nan", "0"])
def test_sizes_that_are_none(case, text):
    assert "--memory" in run("segment", case[0], "-m", case[1], "-o", "x", f"--memory={text}").error_line(1)


@pytest.mark.skipif(sanitized(), reason="the sanitizer's own memory counts")
def test_jobs_share_the_limit(case, plain, tmp_path):
    """Three at a time where memory is for one: they follow each other."""
    scans = tmp_path / "scans"
    scans.mkdir()
    data = case[0].read_bytes()
    for name in "abc":
        (scans / f"{name}.nii").write_bytes(data)
    limit = planned(*case)["peak_bytes"] * 13 // 10
    report = tmp_path / "r.json"
    result = run("segment", scans, "-m", case[1], "-o", tmp_path / "out", "--jobs", 3, "--memory", limit,
                 "--format", "nii", "--report", report, "--step", 1)
    assert result.code == 0, result.err
    assert json.loads(report.read_text())["summary"]["peak_memory_bytes"] < 1.05 * limit
    for name in "abc":
        assert (tmp_path / "out" / f"{name}.nii").read_bytes() == plain[0].read_bytes()


def test_two_channels_read_again(tmp_path, model2):
    """The statistics are those of the model's first channel, read again or not."""
    for i in range(2):
        save(tmp_path / f"case_000{i}.nii.gz", seed=i, shape=(96, 96, 96))
    results = []
    for limit in ((), ("--memory", "1")):
        pair = [f"--channel=T{2 - i}w={tmp_path}/case_000{i}.nii.gz" for i in range(2)]  # the other way round
        if limit:
            plan = planned(tmp_path / "case_0000.nii.gz", model2)
            limit = ("--memory", plan["peak_bytes"] - 2000000)
        out = tmp_path / f"{len(results)}.nii"
        result = run("segment", *pair, "-m", model2, "-o", out, *limit)
        assert result.code == 0, result.err
        results.append((out.read_bytes(), json.loads(out.with_suffix(".json").read_text())["labels"]))
    assert results[0] == results[1]
