"""What Slicer's extension catalogue wants of an extension."""
import json
import os
import re
import struct

import support

# Facts of the public schema slicer-extension-catalog-entry-schema-v1.0.1 (draft 7; additional properties are not allowed).
REQUIRED = {"$schema", "category", "scm_url"}
KINDS = {"$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str, "build_dependencies": list,
         "build_subdirectory": str, "enabled": bool, "tier": int}


def entry():
    with open(os.path.join(support.EXTENSION, "VoxMamba.json"), encoding="utf-8") as file:
        return json.load(file)


def cmake(name):
    with open(os.path.join(support.EXTENSION, "CMakeLists.txt"), encoding="utf-8") as file:
        return re.search(rf'set\({name} "([^"]*)"', file.read()).group(1)


def test_catalogue_entry():
    value = entry()
    assert REQUIRED <= set(value) <= set(KINDS)
    for key, each in value.items():
        assert type(each) is KINDS[key], key
    assert value["$schema"] == ("https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/"
                                "slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert value["scm_type"] in ("git", "local") and 1 <= value["tier"] <= 5
    assert all(isinstance(each, str) for each in value["build_dependencies"])


def test_entry_and_cmake_say_the_same():
    """The entry's file has the extension's name; category and dependencies are those of CMakeLists.txt."""
    with open(os.path.join(support.EXTENSION, "CMakeLists.txt"), encoding="utf-8") as file:
        assert re.search(r"^project\(VoxMamba\)", file.read(), re.MULTILINE)
    assert entry()["category"] == cmake("EXTENSION_CATEGORY") == "Segmentation"
    assert entry()["build_dependencies"] == [] and cmake("EXTENSION_DEPENDS") == "NA"
    description = cmake("EXTENSION_DESCRIPTION")
    assert 20 < len(description) < 300 and not set(";\n") & set(description)


def test_icon_is_a_png_of_128_by_128():
    with open(os.path.join(support.MODULE, "Resources", "Icons", "VoxMamba.png"), "rb") as file:
        head = file.read(24)
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:24]) == (128, 128)
