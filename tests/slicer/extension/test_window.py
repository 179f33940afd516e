"""The module's file, its window and the command-line module's description agree. None of it runs: Qt is not here."""
import ast
import os
import re
import xml.etree.ElementTree as ElementTree

import support

SOURCE = os.path.join(support.MODULE, "VoxMamba.py")
UI = os.path.join(support.MODULE, "Resources", "UI", "VoxMamba.ui")
LIBRARY = os.path.join(support.MODULE, "VoxMambaLib")


def python_files():
    return [SOURCE] + [os.path.join(LIBRARY, name) for name in sorted(os.listdir(LIBRARY)) if name.endswith(".py")]


def tree():
    with open(SOURCE, encoding="utf-8") as file:
        return ast.parse(file.read(), SOURCE)


def class_of(name):
    return next(node for node in tree().body if isinstance(node, ast.ClassDef) and node.name == name)


def parameter_node():
    """name -> (annotation's text, default)"""
    return {node.target.id: (ast.unparse(node.annotation), ast.literal_eval(node.value) if node.value else None)
            for node in class_of("VoxMambaParameterNode").body if isinstance(node, ast.AnnAssign)}


def widgets():
    """name -> (class, SlicerParameterName or None)"""
    found = {}
    for widget in ElementTree.parse(UI).getroot().iter("widget"):
        bound = widget.find("property[@name='SlicerParameterName']/string")
        assert widget.get("name") not in found
        found[widget.get("name")] = (widget.get("class"), bound.text if bound is not None else None)
    return found


def test_python_of_the_oldest_slicer():
    """Slicer 5.6 has Python 3.9."""
    for path in python_files():
        with open(path, encoding="utf-8") as file:
            ast.parse(file.read(), path, feature_version=(3, 9))


def test_only_the_adapter_knows_qt_and_nothing_in_the_library_knows_slicer():
    for path in python_files()[1:]:
        with open(path, encoding="utf-8") as file:
            imported = {alias.name.split(".")[0] for node in ast.walk(ast.parse(file.read())) if isinstance(node, (ast.Import, ast.ImportFrom))
                        for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)}
        assert not imported & {"slicer", "ctk", "numpy"}, path
        assert "qt" not in imported or os.path.basename(path) == "QtProcess.py", path


# Which widgets Slicer's parameter node connects to which types (slicer.parameterNodeWrapper, in Slicer 5.6 and later).
CONNECTED = {"vtkMRMLScalarVolumeNode": "qMRMLNodeComboBox", "bool": "QCheckBox", "int": "QSpinBox", "float": "QDoubleSpinBox",
             "str with choices": "QComboBox"}


def test_every_bound_widget_has_a_parameter_of_its_kind():
    parameters, bound = parameter_node(), {}
    for name, (kind, parameter) in widgets().items():
        if parameter:
            assert parameter in parameters, name
            assert parameter not in bound
            annotation = parameters[parameter][0]
            plain = re.sub(r"^Annotated\[(\w+),.*", r"\1", annotation)
            if plain == "str" and "Choice" in annotation:
                plain = "str with choices"
            assert CONNECTED[plain] == kind, (name, annotation)
            bound[parameter] = name
    assert set(parameters) - set(bound) == {"model", "labels"}  # lists: connected by the module itself


def test_the_code_names_widgets_that_are_there():
    named = {node.attr for node in ast.walk(class_of("VoxMambaWidget")) if isinstance(node, ast.Attribute)
             and isinstance(node.value, ast.Attribute) and node.value.attr == "ui"}
    assert "applyButton" in named and named <= set(widgets()), named - set(widgets())


def test_connected_methods_and_custom_widgets_are_declared():
    methods = {node.name for node in class_of("VoxMambaWidget").body if isinstance(node, ast.FunctionDef)}
    slots = re.findall(r"\.connect\(\"[^\"]*\", self\.(\w+)\)", ast.unparse(class_of("VoxMambaWidget")).replace("'", '"'))
    assert len(slots) == 6 and set(slots) <= methods
    root = ElementTree.parse(UI).getroot()
    declared = {node.findtext("class") for node in root.iter("customwidget")}
    used = {kind for kind, _ in widgets().values() if not kind.startswith("Q")}
    assert used == declared
    receivers = {node.findtext("receiver") for node in root.iter("connection")}
    assert receivers == {name for name, (kind, _) in widgets().items() if "NodeComboBox" in kind}


def test_parameters_are_those_of_the_command_line_module():
    """Defaults, choices and limits of the window and of VoxMambaSegment.xml are the same."""
    described = {texts["name"]: (kind, texts, constraints, choices) for kind, texts, constraints, choices in support.parameters()
                 if texts.get("channel") != "output" and texts.get("longflag")}
    ours = parameter_node()
    assert set(ours) - {"inputVolume"} == set(described)
    for name, (kind, texts, constraints, choices) in described.items():
        annotation, default = ours[name]
        if kind == "boolean":
            assert default is False and texts["default"] == "false", name
        elif kind in ("string", "string-enumeration"):
            assert default == texts["default"], name
        else:
            assert default == float(texts["default"]), name
            low, high = map(float, re.search(r"WithinRange\(([\d.]+), ([\d.]+)\)", annotation).groups())
            assert (low, high) == (constraints["minimum"], constraints["maximum"]), name
        if choices:
            assert ast.literal_eval(re.search(r"Choice\((.*?)\)", annotation).group(1)) == choices, name


def test_words_of_errors_name_controls_that_are_there():
    labels = {(node.text or "").rstrip(":") for node in ElementTree.parse(UI).getroot().iter("string")}
    assert {"Any field of view", "Advanced", "Memory limit", "Threads", "Segments", "Device", "Precision"} <= labels


def test_the_sample_scan_is_the_one_that_is_registered():
    import hashlib
    with open(SOURCE, encoding="utf-8") as file:
        (digest,) = re.findall(r"SHA256:([0-9a-f]{64})", file.read())
    with open(support.SAMPLE, "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest
