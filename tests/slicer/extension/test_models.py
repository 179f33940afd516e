"""The list of models as the window gets it (VoxMambaLib/Models.py, Program.py), from the real program."""
import json
import os
import shutil

import pytest
import support
from VoxMambaLib import Models, Program


def test_the_shipped_model():
    models = Models.list_models(support.PROGRAM, support.environment())
    model = next(each for each in models if each.name == "hippocampus")
    assert [(label.value, label.name) for label in model.labels] == [(1, "anterior"), (2, "posterior")]
    assert all(len(label.rgb) == 3 and all(0 <= each <= 255 for each in label.rgb) for label in model.labels)
    assert (model.modality, model.channels, model.licence) == ("MR", ("T1w",), "CC-BY-SA-4.0")
    assert model.description and model.version and os.path.isfile(model.path)
    assert model.refusal() == ""


def test_folders_with_blanks_and_letters_beyond_ascii(tmp_path):
    folder = tmp_path / "my models ü 影"
    folder.mkdir()
    shutil.copy(os.path.join(support.ROOT, "models", "hippocampus.safetensors"), folder)
    env = support.environment(LC_ALL="C")
    env["VOXMAMBA_MODELS"] = str(folder)
    paths = [model.path for model in Models.list_models(support.PROGRAM, env)]
    assert str(folder / "hippocampus.safetensors") in paths


def test_models_of_several_channels_are_refused_in_words():
    text = json.dumps([{"name": "two", "path": "/m", "channels": ["T1w", "T2w"], "labels": [{"value": 1, "name": "a"}], "new": 1}])
    (model,) = Models.parse(text)
    assert "2 volumes" in model.refusal() and "T1w, T2w" in model.refusal()
    assert model.labels == (Models.Label(1, "a", None),)


def test_a_broken_file_does_not_hide_the_others(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    env = support.environment()
    env["VOXMAMBA_MODELS"] = str(tmp_path)
    assert "hippocampus" in [model.name for model in Models.list_models(support.PROGRAM, env)]


@pytest.mark.parametrize("program, words", [
    ("echo '[]'", "no model is installed"),
    ("echo 'no JSON'", "gave no list of models"),
    ("echo '[{\"name\": \"x\"}]'", "gave no list of models"),
    ("echo 'voxmamba: a broken file' >&2; exit 3", "voxmamba: a broken file"),
    ("exit 9", "ended with 9"),
    ("echo 'voxmamba: m.safetensors: broken' >&2; echo '[]'", "m.safetensors: broken"),
])
def test_failures_say_why(tmp_path, program, words):
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    with pytest.raises(Models.ModelsUnknown, match=words.replace("[", r"\[")):
        Models.list_models(str(path), support.environment())


def test_no_program(tmp_path):
    with pytest.raises(Models.ModelsUnknown, match="could not be run"):
        Models.list_models(str(tmp_path / "none"), {})


def test_programs_are_found_beside_the_module(tmp_path):
    module = tmp_path / "lib" / "qt-scripted-modules"
    module.mkdir(parents=True)
    with pytest.raises(Program.ProgramMissing, match="Install the package"):
        Program.programs_of(str(module))
    for name in ("cli-modules/VoxMambaSegment", "bin/voxmamba"):
        path = tmp_path / "lib" / name
        path.parent.mkdir()
        path.write_text("")
        path.chmod(0o755)
    assert Program.programs_of(str(module)) == (str(tmp_path / "lib/cli-modules/VoxMambaSegment"), str(tmp_path / "lib/bin/voxmamba"))
    path.chmod(0o644)
    with pytest.raises(Program.ProgramMissing, match="may not be run"):
        Program.programs_of(str(module))
