"""The module as it is installed, imported over the stand-ins: the fixture "place" of the tests that import VoxMamba.py."""
import importlib
import os
import shutil
import sys
import urllib.parse
import urllib.request

import bundle
import pytest
import slicer
import stand_ins
import support
from trame_slicer.core import SlicerApp


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(the imported module, what it registers, its folder of temporary files): laid out as in an extension."""
    root = tmp_path_factory.mktemp("Slicer ü")
    base = bundle.make(root / "lib" / "Slicer-5.8")
    modules = os.path.join(base, "qt-scripted-modules")
    shutil.copytree(support.MODULE, modules, ignore=shutil.ignore_patterns("__pycache__", "CMakeLists.txt"))
    os.makedirs(os.path.join(modules, "Resources", "SampleData"))
    shutil.copy(support.SAMPLE, os.path.join(modules, "Resources", "SampleData"))
    temporary = root / "tmp é"
    temporary.mkdir()
    application = SlicerApp()

    def load(uri):
        path = urllib.request.url2pathname(urllib.parse.urlparse(uri).path)
        return application.io_manager.load_volumes(path)[0]

    environment = {**support.environment(), "SLICER_HOME": str(root), "LD_LIBRARY_PATH": str(root / "wrong"), "PYTHONHOME": "/wrong"}
    del environment["VOXMAMBA_MODELS"]
    told = stand_ins.install(slicer, application.scene, load, str(temporary), environment)
    sys.path.remove(support.MODULE)
    for name in [name for name in sys.modules if name.split(".")[0] == "VoxMambaLib"]:
        del sys.modules[name]
    sys.path.insert(0, modules)
    module = importlib.import_module("VoxMamba")
    assert module.FOLDER == modules
    return module, told, temporary
