"""What the tests of the command-line module share."""
import os
import sys

import pytest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(os.path.dirname(HERE)), "cli")]
import tiny_model  # noqa: E402
from volumes import save  # noqa: E402


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny_model.write(str(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def scan(tmp_path):
    """As Slicer writes it: uncompressed, in a folder of its own."""
    (tmp_path / "in").mkdir()
    return save(tmp_path / "in" / "scan.nii")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"
