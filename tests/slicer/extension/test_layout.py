"""The extension's CMake against packaging/slicer (which stands in for Slicer): what is installed, that it works from there, and
the packages of scripts/package-slicer.sh."""
import os
import shutil
import stat
import subprocess
import tarfile

import bundle
import pytest
import support

CMAKE = os.environ.get("CMAKE", "cmake")
VERSION = os.environ.get("VOXMAMBA_VERSION", "0.1.0")
BASE = "lib/Slicer-5.8"


def cmake(*words, cwd=None):
    return subprocess.run([CMAKE, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)


def configure(build, *words):
    return cmake("-S", support.EXTENSION, "-B", build, f"-DSlicer_DIR={support.ROOT}/packaging/slicer", "-DSlicer_VERSION=5.8", *words)


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """(build tree, installed tree, the bundle's folder), in folders with blanks and letters beyond ASCII."""
    root = tmp_path_factory.mktemp("an extension ü")
    folder = bundle.make(root / "bundle" / f"voxmamba-{VERSION}-linux-x86_64")
    tarball = root / "bundle é.tar.gz"
    with tarfile.open(tarball, "w:gz") as tar:
        tar.add(folder, os.path.basename(folder))
    done = configure(root / "build", f"-DVOXMAMBA_BUNDLE={tarball}")
    assert done.returncode == 0, done.stderr
    for words in (("--build", root / "build"), ("--install", root / "build", "--prefix", root / "installed")):
        done = cmake(*words)
        assert done.returncode == 0, done.stderr
    return root / "build", root / "installed", folder


def files_below(folder):
    return {os.path.relpath(os.path.join(path, name), folder) for path, _, names in os.walk(folder) for name in names}


def sources():
    """The files of the module in the source, by their names below qt-scripted-modules."""
    found = files_below(support.MODULE)
    return {name for name in found if "__pycache__" not in name and not name.endswith("CMakeLists.txt")}


def test_what_is_installed(laid):
    _, installed, _ = laid
    modules = {f"{BASE}/qt-scripted-modules/{name}" for name in sources() | {
        "Resources/SampleData/hippocampus_380.nii.gz", "Resources/SampleData/README.md"}}
    programs = {f"{BASE}/{name}" for name in (
        "bin/voxmamba", "cli-modules/VoxMambaSegment", "cli-modules/VoxMambaSegment.xml", "share/doc/voxmamba/copyright",
        *(f"share/voxmamba/models/{name}" for name in bundle.shipped()))}
    if support.DICOM_HELPER:
        programs.add(f"{BASE}/lib/voxmamba/voxmamba-dicom")
    assert f"{BASE}/qt-scripted-modules/VoxMamba.py" in modules and len(sources()) > 10
    assert files_below(installed) == modules | programs | {"share/Slicer-5.8/VoxMamba.s4ext"}
    for name in ("bin/voxmamba", "cli-modules/VoxMambaSegment"):
        assert stat.S_IMODE(os.stat(installed / BASE / name).st_mode) & 0o111 == 0o111, name
    # Slicer takes every file of these folders that it can run for a module.
    assert sorted(os.listdir(installed / BASE / "cli-modules")) == ["VoxMambaSegment", "VoxMambaSegment.xml"]
    assert [name for name in os.listdir(installed / BASE / "qt-scripted-modules") if name.endswith(".py")] == ["VoxMamba.py"]


def test_build_tree_is_laid_out_alike(laid):
    build, installed, _ = laid
    assert files_below(build / BASE) == files_below(installed / BASE)


def test_description(laid):
    _, installed, _ = laid
    with open(installed / "share/Slicer-5.8/VoxMamba.s4ext", encoding="utf-8") as file:
        value = dict(line.rstrip("\n").partition(" ")[::2] for line in file)
    assert {"scm", "scmurl", "scmrevision", "depends", "build_subdirectory", "homepage", "contributors", "category", "iconurl", "status",
            "description", "screenshoturls", "enabled", "tier"} <= set(value)
    assert (value["category"], value["depends"], value["enabled"]) == ("Segmentation", "NA", "1")
    assert ".invalid" in value["homepage"] and len(value["description"]) > 20


def test_it_works_from_there_and_after_a_move(laid, tmp_path):
    """No VOXMAMBA_MODELS, a clean environment, read-only files, another working folder."""
    from VoxMambaLib import Models, Program
    from VoxMambaLib.Runner import Run, Settings
    moved = tmp_path / "Slicer's own ø" / "Extensions-33241" / "VoxMamba"
    shutil.copytree(laid[1], moved)
    env = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path)}
    if "LSAN_OPTIONS" in os.environ:
        env["LSAN_OPTIONS"] = os.environ["LSAN_OPTIONS"]
    programs = Program.programs_of(str(moved / BASE / "qt-scripted-modules"))
    for path, folders, names in os.walk(moved):
        for name in folders + names:
            os.chmod(os.path.join(path, name), stat.S_IMODE(os.stat(os.path.join(path, name)).st_mode) & ~0o222)
    models = Models.list_models(programs.voxmamba, env)
    assert [model.name for model in models] == ["head_neck", "hippocampus"] and all(model.path.startswith(str(moved)) for model in models)
    heard, process, taken = support.Heard(), support.Process(), []
    run = Run(programs.segment, Settings(), process, env, "scan", str(tmp_path))
    run.start(support.write_nrrd, heard.event, lambda files, returned: taken.append(os.path.getsize(files.segmentation)), heard.end)
    process.pump_to_end()
    assert heard.outcomes[0].state == "done" and taken[0] > 500, heard.outcomes


@pytest.mark.parametrize("given, words", [
    ("", "VOXMAMBA_BUNDLE is not set: run scripts/package.sh"), ("/not/there.tar.gz", "is not there"),
    ("EMPTY", "has no bin/voxmamba")])
def test_without_a_bundle_it_says_what_to_do(tmp_path, given, words):
    (tmp_path / "empty").mkdir()
    done = configure(tmp_path / "build", f"-DVOXMAMBA_BUNDLE={given.replace('EMPTY', str(tmp_path / 'empty'))}")
    assert done.returncode != 0 and words in " ".join(done.stderr.split())


def test_other_systems_are_told_and_can_bring_their_own(tmp_path):
    """CMake is told that it builds for Windows: refused without a bundle, laid out with one of .exe files."""
    system = ("-DCMAKE_SYSTEM_NAME=Windows", "-DCMAKE_C_COMPILER_WORKS=1", "-DCMAKE_CXX_COMPILER_WORKS=1",
              "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY")
    done = configure(tmp_path / "build", *system)
    assert done.returncode != 0 and "no program of VoxMamba for Windows yet" in " ".join(done.stderr.split()), done.stderr
    folder = bundle.make(tmp_path / "bundle")
    for name in ("bin/voxmamba", "cli-modules/VoxMambaSegment"):
        os.rename(os.path.join(folder, name), os.path.join(folder, name + ".exe"))
    done = configure(tmp_path / "build2", *system, f"-DVOXMAMBA_BUNDLE={folder}")
    assert done.returncode == 0, done.stderr
    assert os.path.isfile(tmp_path / "build2" / BASE / "cli-modules" / "VoxMambaSegment.exe")


def test_the_cuda_module_can_be_laid_over_it(tmp_path, laid):
    cuda = tmp_path / "voxmamba-cuda"
    (cuda / "lib" / "voxmamba").mkdir(parents=True)
    (cuda / "lib" / "voxmamba" / "libvoxmamba_cuda.so").write_bytes(b"module")
    done = configure(tmp_path / "build", f"-DVOXMAMBA_BUNDLE={laid[2]};{cuda}")
    assert done.returncode == 0, done.stderr
    assert cmake("--install", tmp_path / "build", "--prefix", tmp_path / "installed").returncode == 0
    assert (tmp_path / "installed" / BASE / "lib/voxmamba/libvoxmamba_cuda.so").read_bytes() == b"module"


@pytest.mark.parametrize("script_words", [("--help",), (), ("5", "x.tar.gz"), ("5.8", "/not/there.tar.gz")])
def test_packaging_script_refuses(script_words):
    done = subprocess.run(["sh", f"{support.ROOT}/scripts/package-slicer.sh", *script_words], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "package-slicer.sh: " in done.stderr


@pytest.fixture(scope="module")
def packages(tmp_path_factory, laid):
    """The folder of what scripts/package-slicer.sh makes."""
    out = tmp_path_factory.mktemp("packages") / "out ü"
    done = subprocess.run(["sh", f"{support.ROOT}/scripts/package-slicer.sh", "5.8", laid[2], str(out)],
                          env={**os.environ, "CMAKE": CMAKE}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


EXTENSION = f"VoxMamba-{VERSION}-Slicer-5.8-linux-amd64"
MODULES = f"VoxMamba-{VERSION}-slicer-modules-linux-amd64"


def test_packages(packages, laid):
    """One folder in each archive, no links, and the programs may be run."""
    assert sorted(os.listdir(packages)) == [f"{EXTENSION}.tar.gz", f"{MODULES}.tar.gz"]
    for top, base, want in ((EXTENSION, f"{EXTENSION}/{BASE}", files_below(laid[1])),
                            (MODULES, MODULES, files_below(laid[1] / BASE) | {"README.txt"})):
        with tarfile.open(packages / f"{top}.tar.gz") as tar:
            members = {member.name: member for member in tar.getmembers() if not member.isdir()}
        assert {f"{top}/{name}" for name in want} == set(members)
        assert all(member.isfile() and member.uid == 0 for member in members.values())
        assert members[f"{base}/cli-modules/VoxMambaSegment"].mode & 0o111 == 0o111


def test_slicers_own_code_reads_the_package(packages, tmp_path):
    """Slicer takes an archive for an extension if one name in it ends in .s4ext. Its libarchive keeps who may run what."""
    archive = pytest.importorskip("slicer").vtkArchive
    path, names = str(packages / f"{EXTENSION}.tar.gz"), []
    assert archive.ListArchive(path, names)
    assert [name for name in names if name.endswith(".s4ext")] == [f"{EXTENSION}/share/Slicer-5.8/VoxMamba.s4ext"]
    assert archive.UnZip(path, str(tmp_path))
    done = subprocess.run([tmp_path / EXTENSION / BASE / "cli-modules" / "VoxMambaSegment", "--xml"], env={}, capture_output=True, check=False)
    with open(support.XML, "rb") as file:
        assert (done.returncode, done.stdout, done.stderr) == (0, file.read(), b"")
