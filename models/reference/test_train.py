"""The trainer on the sample scan and on splits: interrupted, shared by processes, and with soft targets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import write_cases

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "sample-data"


@pytest.fixture
def data(tmp_path):
    """The sample twice: one case to train on, one to validate."""
    folder = tmp_path / "data"
    for part, name in (("images", "hippocampus_380.nii.gz"), ("labels", "hippocampus_380_labels.nii.gz")):
        (folder / part).mkdir(parents=True)
        shutil.copy(SAMPLE / name, folder / part / "one.nii.gz")
        shutil.copy(SAMPLE / name, folder / part / "two.nii.gz")
    (folder / "folds.tsv").write_text("case\tsubject_group\tfold5\none\t1\t0\ntwo\t2\t3\n")
    return folder


def train(data, out, *more, steps=4, processes=1, recipe="hippocampus"):
    starter = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    subprocess.run([sys.executable, *starter, HERE / "train.py", "--recipe", HERE / "recipes" / f"{recipe}.json",
                    "--data", data, "--out", out, "--twin", "--steps", str(steps), "--batch", "2", "--features", "2",
                    "2", "2", "2", "--patch", "32", "40", "32", "--device", "cpu", *more], check=True)
    return torch.load(out / "checkpoint.pt")


def test_resume_changes_nothing(data, tmp_path):
    whole = train(data, tmp_path / "whole")
    train(data, tmp_path / "parts", "--stop-at", "2")
    parts = train(data, tmp_path / "parts")
    assert parts["step"] == whole["step"] == 4
    assert all(torch.equal(a, b) for a, b in zip(parts["average"], whole["average"]))


def test_processes_share_a_batch(data, tmp_path):
    """Two processes find the gradient of one: AdamW's first moments after one step are a tenth of it."""

    def gradient(state):
        return torch.cat([p["exp_avg"].reshape(-1) for p in state["optimiser"]["state"].values()])

    one = gradient(train(data, tmp_path / "one", steps=1))
    two = gradient(train(data, tmp_path / "two", steps=1, processes=2))
    assert (one - two).norm() < 1e-4 * one.norm()


def test_soft_targets(data, tmp_path):
    """What one run says of the unseen case is a target for the next, and changes its result."""
    hard = train(data, tmp_path / "hard", "--train-parts", "3", "--validation-parts", "0", "--save-probabilities",
                 tmp_path / "soft")
    maps = np.load(tmp_path / "soft" / "one.npz")["probabilities"]
    assert maps.shape[0] == 2 and maps.dtype == np.uint8 and maps.any()
    soft = train(data, tmp_path / "with", "--soft", tmp_path / "soft")
    plain = train(data, tmp_path / "without")
    assert not all(torch.equal(a, b) for a, b in zip(soft["average"], plain["average"]))
    assert hard["step"] == soft["step"]


def test_splits_with_a_recipe_that_does_not_mirror(tmp_path):
    """Stored LPI, turned; validated once, as there is nothing to mirror."""
    data = write_cases(tmp_path / "data")
    state = train(data, tmp_path / "run", "--train-parts", "train", "--validation-parts", "validation", "--centred",
                  "0.5", "--patch", "16", "16", "16", recipe="head_neck")
    assert state["step"] == 4
    report = json.loads((tmp_path / "run" / "validation.json").read_text())
    assert report["cases"] == ["c"] and "dice" in report and "dice_mirrored" not in report
