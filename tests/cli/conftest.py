"""What the tests of the command line share."""
import gzip
import os
import re
import subprocess
import sys

import nibabel
import numpy as np
import pytest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "dicom")]
import tiny_model  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(HERE))
PROGRAM = os.environ.get("VOXMAMBA_PROGRAM", os.path.join(ROOT, "build/release/cli/voxmamba"))


class Result:
    """How one run ended."""

    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def error_line(self, code):
        """The one line of a failed run: voxmamba: [file:] what is wrong."""
        assert self.code == code, (self.code, self.out, self.err)
        lines = [l for l in self.err.splitlines() if "warning: " not in l]
        lines = [l for l in lines if not l.endswith("%")]  # progress
        assert len(lines) == 1, lines
        assert lines[0].startswith("voxmamba: "), lines
        assert "/home" not in lines[0] and not lines[0].endswith("."), lines
        return lines[0]


def command(*args):
    return [PROGRAM, *[str(a) for a in args]]


def environment(**more):
    env = {k: v for k, v in os.environ.items() if k != "VOXMAMBA_MODELS"}
    env["CUDA_VISIBLE_DEVICES"] = ""  # the CPU's masks and messages, whatever the machine has
    env.update({k: str(v) for k, v in more.items()})
    return env


def run(*args, cwd=None, env=None, timeout=300):
    done = subprocess.run(command(*args), cwd=cwd, env=env or environment(), capture_output=True, text=True,
                          timeout=timeout)
    for word in ("AddressSanitizer", "runtime error:", "LeakSanitizer"):
        assert word not in done.stderr, done.stderr
    return Result(done)


def volume(seed=0, shape=(20, 24, 18), dtype=np.int16, affine=None):
    """Noise around two blobs."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    blob = 900 * np.exp(-8 * ((grid - 0.2) ** 2).sum(0)) - 500 * np.exp(-9 * ((grid + 0.4) ** 2).sum(0))
    data = blob + random.normal(0, 60, shape) + 300
    if affine is None:
        turn = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]])  # oblique
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag([-1.0, 1.1, 0.9])
        affine[:3, 3] = [30.5, -20, 7.25]
    return nibabel.Nifti1Image(data.astype(dtype), affine)


def save(path, seed=0, **more):
    nibabel.save(volume(seed, **more), str(path))
    return path


def free_memory():
    return int(re.search(r"MemAvailable: *(\d+)", open("/proc/meminfo").read())[1]) * 1024


def bomb(path, voxels, dtype=np.uint8):
    """A gzip stream whose header claims so many voxels, in a file that could just hold them."""
    side = int(voxels ** (1 / 3)) + 1
    if path.suffix == ".nrrd":
        head = f"NRRD0004\ntype: {np.dtype(dtype).name}\ndimension: 3\nspace: left-posterior-superior\n" \
               f"sizes: {side} {side} {side}\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\n" \
               "endian: little\nencoding: gzip\nspace origin: (0,0,0)\n\n"
        path.write_bytes(head.encode() + gzip.compress(bytes(4)))
    else:
        header = nibabel.Nifti1Header()
        header.set_data_dtype(dtype)
        header.set_data_shape((side, side, side))
        header["vox_offset"], header["magic"] = 352, b"n+1"
        header.set_sform(np.eye(4), 1)
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    os.truncate(path, side**3 * np.dtype(dtype).itemsize // 1024)
    return path


def load(path):
    image = nibabel.load(str(path))
    return np.asarray(image.dataobj), image.affine


def files(folder):
    return sorted(os.listdir(folder))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny_model.write(str(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="session")
def model2(tmp_path_factory):
    """Two channels, three labels."""
    value = tiny_model.recipe("two", channels=("T1w", "T2w"), labels=3)
    return tiny_model.write(str(tmp_path_factory.mktemp("model2") / "two.safetensors"), value, seed=5)


@pytest.fixture
def scan(tmp_path):
    return save(tmp_path / "scan.nii.gz")


@pytest.fixture(scope="session")
def dicom_is_built(tmp_path_factory):
    """Skips what needs DICOM in a build without it."""
    pytest.importorskip("pydicom")
    import dicom_series
    folder = tmp_path_factory.mktemp("probe")
    dicom_series.write_series(folder)
    result = run("info", folder)
    if result.code != 0:
        assert "not in this build" in result.err or "DICOM" in result.err, result.err
        pytest.skip("this build does not read DICOM")
