"""The trainer on the sample scan: an interrupted run ends with the weights of an uninterrupted one."""

import shutil
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "sample-data"


def train(data, out, *more):
    subprocess.run([sys.executable, HERE / "train.py", "--recipe", HERE / "recipes" / "hippocampus.json",
                    "--data", data, "--out", out, "--twin", "--steps", "4", "--batch", "2", "--features", "2", "2",
                    "2", "2", "--patch", "32", "40", "32", "--device", "cpu", *more], check=True)
    return torch.load(out / "checkpoint.pt")


def test_resume_changes_nothing(tmp_path):
    for folder, name in (("images", "hippocampus_014.nii.gz"), ("labels", "hippocampus_014_labels.nii.gz")):
        (tmp_path / folder).mkdir()
        shutil.copy(SAMPLE / name, tmp_path / folder / "one.nii.gz")
        shutil.copy(SAMPLE / name, tmp_path / folder / "two.nii.gz")
    (tmp_path / "folds.tsv").write_text("case\tsubject_group\tfold5\none\t1\t0\ntwo\t2\t3\n")
    whole = train(tmp_path, tmp_path / "whole")
    train(tmp_path, tmp_path / "parts", "--stop-at", "2")
    parts = train(tmp_path, tmp_path / "parts")
    assert parts["step"] == whole["step"] == 4
    assert all(torch.equal(a, b) for a, b in zip(parts["average"], whole["average"]))
