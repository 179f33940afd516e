"""What the extension brings of the models' labels: made from the recipes, coded as DICOM codes them, and read by Slicer."""
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import slicer
from mrml import LABELS, MODELS, MODULE, ROOT, STRUCTURE, sct, write_model
from pydicom.sr.codedict import codes
from VoxMambaLib import Importer, Labels

SCRIPT = os.path.join(ROOT, "scripts/slicer_resources.py")
RESOURCES = os.path.join(MODULE, "Resources")
sys.path.insert(0, os.path.dirname(SCRIPT))
import slicer_resources  # noqa: E402

SHIPPED = {r["name"]: r["labels"] for r in (slicer_resources.recipe(p) for p in sorted(pathlib.Path(MODELS).glob("*.safetensors")))}
# A model with what the shipped ones may lack: sides, types without a modifier, several types.
SIDES = {side: sct(code, side) for side, code in (("Right", "24028007"), ("Left", "7771000"))}
HEAD_AND_NECK = [
    {"value": 1, "name": "brainstem", "rgb": [90, 160, 220], "category": STRUCTURE, "type": sct("119238007", "Brain stem")},
    {"value": 2, "name": "spinal cord", "rgb": [244, 214, 49], "category": STRUCTURE, "type": sct("2748008", "Spinal cord")},
    {"value": 3, "name": "parotid right", "rgb": [230, 110, 90], "category": STRUCTURE, "type": sct("45289007", "Parotid gland"),
     "modifier": SIDES["Right"]},
    {"value": 4, "name": "parotid left", "rgb": [110, 190, 110], "category": STRUCTURE, "type": sct("45289007", "Parotid gland"),
     "modifier": SIDES["Left"]},
    {"value": 5, "name": "mandible", "rgb": [222, 198, 101], "category": STRUCTURE, "type": sct("91609006", "Mandible")},
]
MODELS_LABELS = {**SHIPPED, "head_and_neck": HEAD_AND_NECK, "odd": LABELS}


def run_script(*args):
    return subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True)


def test_committed_is_generated():
    done = run_script("--check")
    assert done.returncode == 0, done.stderr
    assert SHIPPED


def test_script_writes_checks_and_removes(tmp_path):
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    write_model(models / "odd.safetensors")
    args = ("--models", models, "--output", out)
    assert run_script("--check", *args).returncode == 1
    assert run_script(*args).returncode == 0 and run_script("--check", *args).returncode == 0
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*"))
    assert written == ["Colors/VoxMamba-brightness.csv", "Colors/VoxMamba-brightness.ctbl",
                       "Terminologies/VoxMamba-brightness.term.json"]
    (out / written[0]).write_text("edited")
    done = run_script("--check", *args)
    assert done.returncode == 1 and written[0] in done.stderr and written[1] not in done.stderr
    (models / "odd.safetensors").unlink()
    assert run_script("--check", *args).returncode == 1 and run_script(*args).returncode == 0
    assert not list(out.rglob("*.*")) and run_script("--check", *args).returncode == 0


# ---- Codes ----

def context_group(number):
    """SNOMED code -> meaning, of one of DICOM's context groups (PS3.16) as pydicom has them."""
    return {c.value: c.meaning for c in getattr(codes, f"CID{number}").concepts.values() if c.scheme_designator == "SCT"}


CATEGORIES = context_group(7150)       # Segmentation Property Category
TYPES = context_group(7151)            # Segmentation Property Type, with all the groups that it includes
MODIFIERS = {**context_group(2), **context_group(244)}  # Anatomic Modifier, Laterality
# "Anatomical Structure" was T-D000A in CID 7150 while DICOM used SNOMED-RT, which its table of codes (PS3.16 Annex O) translates to
# 123037004: so Slicer's lists and dcmqi code it. Later editions of the group have 91723000.
CATEGORIES["123037004"] = CATEGORIES["91723000"]


@pytest.mark.parametrize("model", [*SHIPPED, "head_and_neck"])
def test_codes_are_dicoms(model):
    for label in MODELS_LABELS[model]:
        for key, group in (("category", CATEGORIES), ("type", TYPES), ("modifier", MODIFIERS)):
            if key == "modifier" and key not in label:
                continue
            code = label[key]
            assert code["scheme"] == "SCT", label
            assert group.get(code["code"], "").lower() == code["meaning"].lower(), label


def test_a_wrong_code_would_be_seen():
    assert "5366008" in TYPES and "5366009" not in TYPES and "255549009" in MODIFIERS and "255549009" not in TYPES
    assert TYPES["45289007"] == "Parotid gland" and TYPES["5366008"] != TYPES["2748008"]


# ---- Slicer reads them ----

def files_of(model, folder):
    """The shipped files, or for another model freshly made ones."""
    if model in SHIPPED:
        return {name: os.path.join(RESOURCES, name) for name in slicer_resources.resources(pathlib.Path(MODELS)) if f"-{model}." in name}
    made = {f"{model}.csv": Labels.color_table_csv(MODELS_LABELS[model]), f"{model}.ctbl": Labels.color_table_ctbl(MODELS_LABELS[model]),
            f"{model}.term.json": Labels.terminology(model, MODELS_LABELS[model])}
    for name, text in made.items():
        (folder / name).write_text(text)
    return {name: str(folder / name) for name in made}


@pytest.mark.parametrize("model", MODELS_LABELS)
@pytest.mark.parametrize("ending", ["csv", "ctbl"])
def test_color_tables(scene, tmp_path, model, ending):
    labels = MODELS_LABELS[model]
    path = next(p for n, p in files_of(model, tmp_path).items() if n.endswith(f".{ending}"))
    node = Importer.import_color_table(scene, path, f"VoxMamba {model}")
    assert node.GetNumberOfColors() == max(l["value"] for l in labels) + 1
    color = [0.0] * 4
    assert node.GetColor(0, color) and color == [0, 0, 0, 0]
    for label in labels:
        value, name = label["value"], label["name"]
        assert node.GetColor(value, color)
        assert np.allclose(np.array(color) * 255, [*label["rgb"], 255])
        if ending == "ctbl":
            assert node.GetColorName(value) == name
            continue
        assert node.GetColorName(value) == name.replace('"', "'").replace("\\", "/")
        entry = node.GetTerminologyAsString(value).split("~")
        assert entry[1:4] == (Labels.terminology_entry(label).split("~")[1:4] or ["^^"] * 3)


@pytest.mark.parametrize("model", MODELS_LABELS)
def test_terminologies(app, tmp_path, model):
    """Slicer lists the model's labels, with codes and colours, and finds a result's entry in the list."""
    logic, labels = app.terminologies_logic, [l for l in MODELS_LABELS[model] if "type" in l]
    files = files_of(model, tmp_path)
    folder = os.path.dirname(next(p for n, p in files.items() if n.endswith(".term.json")))
    names = Importer.load_terminologies(logic, folder)
    context = Labels.context_name(model)
    assert context in names and logic.IsTerminologyContextLoaded(context)
    entries = set()
    for label in labels:
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.FindTypeInTerminologyBy3dSlicerLabel(context, label["name"], entry), label
        assert re.sub("^[^~]*~", "", logic.SerializeTerminologyEntry(entry)).split("~")[:3] == \
            Labels.terminology_entry(label, context).split("~")[1:4]
        kind = entry.GetTypeModifierObject() if "modifier" in label else entry.GetTypeObject()
        assert list(kind.GetRecommendedDisplayRGBValue()) == label["rgb"]
        # A result names DICOM's list and has the same codes: Slicer looks them up in every list.
        of_result = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(Labels.terminology_entry(label), of_result)
        assert logic.AreTerminologyEntriesEqual(entry, of_result)
        modifier = label.get("modifier", {"scheme": "", "code": ""})
        found = logic.FindTerminologyNames(Labels.category_of(label)["scheme"], Labels.category_of(label)["code"], label["type"]["scheme"],
                                           label["type"]["code"], modifier["scheme"], modifier["code"], [context], None, None)
        assert list(found) == [context]
        entries.add(logic.SerializeTerminologyEntry(entry))
    assert len(entries) == len(labels)


def test_terminology_file_has_what_its_schema_requires():
    """QIICR's segment-context-schema.json: required keys and types (the schema itself is not here)."""
    for model, labels in MODELS_LABELS.items():
        value = json.loads(Labels.terminology(model, labels))
        assert value["@schema"].endswith("/segment-context-schema.json#")
        assert isinstance(value["SegmentationCategoryTypeContextName"], str)
        for category in value["SegmentationCodes"]["Category"]:
            assert isinstance(category["showAnatomy"], bool) and category["Type"]
            for kind in category["Type"]:
                for item in [category, kind, *kind.get("Modifier", [])]:
                    assert all(isinstance(item[k], str) and item[k]
                               for k in ("CodeMeaning", "CodingSchemeDesignator", "CodeValue"))
                    rgb = item.get("recommendedDisplayRGBValue", [0, 0, 0])
                    assert len(rgb) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in rgb)


def test_two_labels_of_one_code_are_refused():
    twice = [{**HEAD_AND_NECK[0], "value": 9, "name": "again"}]
    with pytest.raises(ValueError, match="brainstem and again"):
        Labels.terminology("m", HEAD_AND_NECK + twice)


def test_broken_terminologies_and_tables(app, tmp_path):
    (tmp_path / "a.term.json").write_text("{")
    with pytest.raises(Importer.ImportFailed, match="a.term.json"):
        Importer.load_terminologies(app.terminologies_logic, str(tmp_path))
    count = app.scene.GetNumberOfNodes()
    (tmp_path / "b.csv").write_text("no,colour\n1,2\n")
    for path in (tmp_path / "b.csv", tmp_path / "gone.csv"):
        with pytest.raises(Importer.ImportFailed, match=path.name):
            Importer.import_color_table(app.scene, path, "broken")
    assert app.scene.GetNumberOfNodes() == count
