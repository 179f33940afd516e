"""info and models: the JSON is what nibabel and hashlib say of the same files."""
import hashlib
import json
import os

import nibabel
import numpy as np
import pytest
import tiny_model
from conftest import ROOT, environment, run, save, volume

AFFINES = {
    "LPS": np.diag([-1.0, -1, 1, 1]),
    "RAS": np.diag([0.7, 0.8, 3, 1]),
    "PSR": np.array([[0, 0, 0.5, 3], [-2, 0, 0, 5], [0, 1.5, 0, -7], [0, 0, 0, 1.0]]),
    "oblique": np.array([[0.8, -0.6, 0, 1], [0.6, 0.8, 0, 2], [0, 0, 2.0, 3], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.uint16, np.int32, np.float64])
def test_volume(tmp_path, name, dtype):
    image = nibabel.Nifti1Image(np.zeros((5, 6, 7), dtype), AFFINES[name])
    path = tmp_path / "v.nii.gz"
    nibabel.save(image, str(path))
    result = run("info", path, "--json")
    assert result.code == 0 and result.err == ""
    info = json.loads(result.out)
    image = nibabel.load(str(path))
    assert info["path"] == str(path) and info["format"] == "nii.gz"
    assert info["dims"] == [5, 6, 7] and info["channels"] == 1
    assert info["dtype"] == np.dtype(dtype).name
    assert np.allclose(info["affine"], image.affine, atol=1e-6)
    assert np.allclose(info["spacing"], nibabel.affines.voxel_sizes(image.affine), atol=1e-6)
    assert info["orientation"] == "".join(nibabel.aff2axcodes(image.affine))


def test_plain_text_has_the_same(tmp_path):
    save(tmp_path / "v.nii.gz")
    out = run("info", tmp_path / "v.nii.gz").out
    assert "20 x 24 x 18" in out and "int16" in out


def test_model(model):
    info = json.loads(run("info", model, "--json").out)
    assert info["recipe"] == tiny_model.recipe()
    assert info["sha256"] == hashlib.sha256(open(model, "rb").read()).hexdigest()
    assert info["parameters"] == sum(a.size for a in tiny_model.tensors(tiny_model.recipe(), 1).values())


def test_plan_of_a_volume_and_of_a_model(tmp_path, model):
    save(tmp_path / "v.nii.gz")
    one = json.loads(run("info", tmp_path / "v.nii.gz", "--plan", "-m", model, "--json").out)["plan"]
    tta = json.loads(run("info", tmp_path / "v.nii.gz", "--plan", "-m", model, "--json", "--tta").out)["plan"]
    patch = json.loads(run("info", model, "--plan", "--json").out)["plan"]
    parts = [one[f"{k}_bytes"] for k in ("program", "network", "accumulator", "volume")]
    assert max(parts) < one["peak_bytes"] <= sum(parts)
    assert one["tiles"] > patch["tiles"] == 1
    assert tta["flops"] == pytest.approx(8 * one["flops"])
    assert one["flops"] == pytest.approx(one["tiles"] * patch["flops"])
    # The convolutions alone, counted by hand: 2 * voxels * kernel * in * out.
    voxels = 16 ** 3
    convs = 2 * voxels * (27 * 1 * 4 + 27 * 8 * 4 + 4 * 3) + 2 * voxels / 8 * (27 * 4 * 8 + 8 * 8 * 4)
    assert convs <= patch["flops"] <= 1.3 * convs


@pytest.mark.parametrize("path, code", [("gone.nii.gz", 2), ("gone", 2), ("gone.safetensors", 2)])
def test_missing(tmp_path, path, code):
    assert path in run("info", tmp_path / path, "--json").error_line(code)
    (tmp_path / "empty").mkdir()
    run("info", tmp_path / "empty").error_line(2)


def test_models(tmp_path, model, model2):
    folder = tmp_path / "modèles"
    folder.mkdir()
    for source in (model, model2):
        os.symlink(source, folder / os.path.basename(source))
    (folder / "broken.safetensors").write_bytes(b"nothing")
    env = environment(VOXMAMBA_MODELS=f"/does/not/exist:{folder}")
    result = run("models", "--json", env=env)
    assert result.code == 0 and "broken.safetensors" in result.err
    found = {m.get("name"): m for m in json.loads(result.out)}
    assert found["tiny"]["sha256"] == hashlib.sha256(open(model, "rb").read()).hexdigest()
    assert found["two"]["channels"] == ["T1w", "T2w"] and found["two"]["licence"] == "CC0-1.0"
    assert found["tiny"]["labels"] == tiny_model.recipe()["labels"]  # without codes
    assert found["tiny"]["path"] == str(folder / "tiny.safetensors")
    assert "error" in found[None]
    out = run("models", env=env).out
    assert "tiny 0.0.1" in out and "CC0-1.0" in out and "1 anterior, 2 posterior" in out


def test_labels_of_the_shipped_models_have_what_their_recipes_say():
    folder = os.path.join(ROOT, "models")
    models = json.loads(run("models", "--json", env=environment(VOXMAMBA_MODELS=folder)).out)
    shipped = [m for m in models if os.path.dirname(m["path"]) == folder]
    assert {os.path.basename(m["path"]) for m in shipped} == {n for n in os.listdir(folder) if n.endswith(".safetensors")}
    for model in shipped:
        with open(model["path"], "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        labels = json.loads(header["__metadata__"]["voxmamba"])["labels"]
        assert model["labels"] == labels and all("type" in l and len(l["rgb"]) == 3 for l in labels)


def test_names_that_are_no_utf8(tmp_path, model):
    name = os.fsencode(tmp_path) + b"/caf\xe9 \xff.nii"
    save(tmp_path / "v.nii")
    os.rename(tmp_path / "v.nii", name)
    import subprocess
    from conftest import PROGRAM
    done = subprocess.run([os.fsencode(PROGRAM), b"info", name, b"--json"], capture_output=True)
    assert done.returncode == 0
    info = json.loads(done.stdout.decode("utf-8"))  # valid JSON, though the name is not valid text
    assert info["path"].endswith("/caf\ufffd \ufffd.nii")
    done = subprocess.run([os.fsencode(PROGRAM), b"segment", name, b"-m", model.encode(), b"-o",
                           os.fsencode(tmp_path / "out")], capture_output=True)
    assert done.returncode == 0 and os.path.exists(os.fsencode(tmp_path) + b"/out/caf\xe9 \xff.nii.gz")


def test_full_standard_output(model):
    import subprocess
    from conftest import command
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("info", model, "--json"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4 and "standard output" in done.stderr
