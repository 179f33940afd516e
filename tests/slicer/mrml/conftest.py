"""One Slicer application for a process; each test's nodes are taken out again."""
import os
import sys

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")  # before VTK is loaded
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import mrml  # noqa: E402
import pytest  # noqa: E402
from trame_slicer.core import SlicerApp  # noqa: E402


@pytest.fixture(scope="session")
def application():
    return SlicerApp()


def nodes(scene):
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


@pytest.fixture
def app(application):
    before = nodes(application.scene)
    yield application
    for name in nodes(application.scene) - before:
        application.scene.RemoveNode(application.scene.GetNodeByID(name))


@pytest.fixture
def scene(app):
    return app.scene


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return mrml.write_model(tmp_path_factory.mktemp("model") / "brightness.safetensors")
