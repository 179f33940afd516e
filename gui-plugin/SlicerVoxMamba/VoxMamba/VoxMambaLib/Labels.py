"""What a model's labels look like in 3D Slicer: terminology entries, terminologies, colour tables.

A label here is an entry of "labels" in a recipe (models/FORMAT.md) or in `voxmamba models --json`, which have the same form:
{"value", "name", "rgb": [0..255 x 3]} and, where the model gives them, "category", "type", "modifier": {"scheme", "code", "meaning"}.
"""
import csv
import io
import json

# Names that Slicer knows its own lists by. A terminology entry names one, but its codes stand in the entry itself: they hold
# without the list, and Slicer looks them up in every list that is loaded.
DICOM_TERMINOLOGY = "Segmentation category and type - DICOM master list"
DICOM_ANATOMY = "Anatomic codes - DICOM master list"

ANATOMICAL_STRUCTURE = {"scheme": "SCT", "code": "123037004", "meaning": "Anatomical Structure"}
SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#"

CODE_COLUMNS = ("CodingScheme", "CodeValue", "CodeMeaning")
TABLE_COLUMNS = (["LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A"]
                 + [f"{part}_{column}" for part in ("Category", "Type", "TypeModifier") for column in CODE_COLUMNS])


def context_name(model):
    """The name of a model's terminology in Slicer."""
    return f"VoxMamba {model}"


def category_of(label):
    return label.get("category") or ANATOMICAL_STRUCTURE


def _triplet(code):
    """scheme^code^meaning; the characters that separate an entry's fields cannot stand in one."""
    if not code:
        return "^^"
    return "^".join("".join(" " if c in "^~|" else c for c in code[key]) for key in ("scheme", "code", "meaning"))


def terminology_entry(label, terminology=DICOM_TERMINOLOGY, anatomy=DICOM_ANATOMY):
    """The label's entry as Slicer serialises it (a segment's tag "TerminologyEntry"); "" for a label without codes."""
    if not label.get("type"):
        return ""
    codes = (category_of(label), label["type"], label.get("modifier"))
    return "~".join([terminology, *map(_triplet, codes), anatomy, _triplet(None), _triplet(None)])


def _code_json(code):
    value = {"CodingSchemeDesignator": code["scheme"], "CodeValue": code["code"], "CodeMeaning": code["meaning"]}
    if code["scheme"] == "SCT":
        value["SNOMEDCTConceptID"] = code["code"]
    return value


def _same(value, code):
    return (value["CodingSchemeDesignator"], value["CodeValue"]) == (code["scheme"], code["code"])


def _find_or_add(items, code):
    for item in items:
        if _same(item, code):
            return item
    items.append(_code_json(code))
    return items[-1]


def terminology(model, labels):
    """The terminology (text of a .term.json) in which Slicer offers the model's labels with their colours.

    ValueError where two labels have the same codes: Slicer could not tell their segments apart."""
    categories = []
    for label in labels:
        if not label.get("type"):
            continue
        category = _find_or_add(categories, category_of(label))
        category.setdefault("showAnatomy", False)  # the type says what and where it is
        kind = _find_or_add(category.setdefault("Type", []), label["type"])
        item = kind
        if label.get("modifier"):
            kind.setdefault("recommendedDisplayRGBValue", list(label["rgb"]))
            item = _find_or_add(kind.setdefault("Modifier", []), label["modifier"])
        if "3dSlicerLabel" in item:
            raise ValueError(f"{model}: {item['3dSlicerLabel']} and {label['name']} have the same codes")
        item["recommendedDisplayRGBValue"] = list(label["rgb"])
        item["3dSlicerLabel"] = label["name"]
    value = {"@schema": SCHEMA, "SegmentationCategoryTypeContextName": context_name(model),
             "SegmentationCodes": {"Category": categories}}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _table_rows(labels):
    yield 0, "Background", (0, 0, 0, 0), {}
    for label in labels:
        yield label["value"], label["name"], (*label["rgb"], 255), label


def color_table_csv(labels):
    """The colour table that Slicer 5.8 and later read, with codes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(TABLE_COLUMNS)
    for value, name, rgba, label in _table_rows(labels):
        codes = (category_of(label), label["type"], label.get("modifier")) if label.get("type") else (None, None, None)
        cells = [cell for code in codes for cell in ((code["scheme"], code["code"], code["meaning"]) if code else ("", "", ""))]
        # Slicer's reader knows no doubled quotation mark inside a quoted cell, and takes a backslash for an escape.
        writer.writerow([str(cell).replace('"', "'").replace("\\", "/") for cell in (value, name, *rgba, *cells)])
    return out.getvalue()


def color_table_ctbl(labels):
    """The colour table that every version reads: names are one word (Slicer shows "_" as a blank), and there are no codes."""
    lines = ["# Value Name R G B A"]
    for value, name, rgba, _ in _table_rows(labels):
        lines.append(" ".join([str(value), "_".join(name.split()), *map(str, rgba)]))
    return "\n".join(lines) + "\n"
