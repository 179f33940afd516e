"""The shared library as its users meet it: docs/example.c compiled and run; the header's calls through ctypes."""
import ctypes
import os
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT, PROGRAM, files, load, run, save

LIBRARY = os.environ.get("VOXMAMBA_LIBRARY") or os.path.join(os.path.dirname(PROGRAM), "../src/api/libvoxmamba.so")
SANITIZED = os.environ.get("VOXMAMBA_SANITIZE") == "ON"


def test_example(scan, model, tmp_path):
    cc = os.environ.get("VOXMAMBA_CC") or shutil.which("cc")
    program = tmp_path / "example"
    flags = ["-fsanitize=address,undefined"] if SANITIZED else []
    subprocess.run([cc, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *flags, "-I",
                    os.path.join(ROOT, "src/api"), os.path.join(ROOT, "docs/example.c"), LIBRARY,
                    f"-Wl,-rpath,{os.path.dirname(LIBRARY)}", "-o", program], check=True)
    done = subprocess.run([program, model, scan, tmp_path / "m.nii.gz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert run("segment", scan, "-m", model, "-o", tmp_path / "cli.nii.gz").code == 0
    mask = load(tmp_path / "m.nii.gz")[0]
    assert np.array_equal(mask, load(tmp_path / "cli.nii.gz")[0])
    voxel = abs(np.linalg.det(load(scan)[1][:3, :3])) / 1000
    assert f"anterior {(mask == 1).sum() * voxel:.3f} ml" in done.stdout
    done = subprocess.run([program, model, "gone.nii.gz", tmp_path / "n.nii.gz"], capture_output=True, text=True)
    assert done.returncode == 2 and "gone.nii.gz: " in done.stderr
    assert len(open(os.path.join(ROOT, "docs/example.c")).read().splitlines()) <= 50


def test_exports_only_the_api():
    nm = shutil.which("nm")
    if not nm:
        pytest.skip("no nm")
    text = subprocess.run([nm, "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in text.splitlines()}
    header = open(os.path.join(ROOT, "src/api/voxmamba.h")).read()
    assert names and all(n.startswith("vxm_") for n in names)
    assert all(n + "(" in header for n in names)
    declared = {w.split("(")[0].lstrip("*") for l in header.splitlines() if l.startswith("VXM_API")
                for w in l.split() if "(" in w}
    assert declared == names


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("text", ctypes.c_char * 512), ("file", ctypes.c_char * 4096)]


class Image(ctypes.Structure):
    _fields_ = [("dims", ctypes.c_size_t * 3), ("affine", ctypes.c_double * 16), ("channels", ctypes.c_size_t),
                ("voxels", ctypes.c_void_p)]


@pytest.fixture(scope="module")
def library():
    if SANITIZED:
        pytest.skip("a sanitized library needs a sanitized host")
    return ctypes.CDLL(LIBRARY)


SEGMENT_OPTIONS = 8 + 3 * 8 + 8 + 6 * 4 + 8 + 8 + 3 * 8  # sizeof vxm_segment_options on 64-bit machines


def opened(library, model):
    error, handle, session = Error(), ctypes.c_void_p(), ctypes.c_void_p()
    assert library.vxm_model_open(str(model).encode(), ctypes.byref(handle), ctypes.byref(error)) == 0, error.text
    assert library.vxm_session_create(handle, None, ctypes.byref(session), ctypes.byref(error)) == 0, error.text
    return handle, session


def test_plan(library, model):
    _, session = opened(library, model)
    dims, error = (ctypes.c_size_t * 3)(20, 20, 20), Error()
    affine = (ctypes.c_double * 16)(*np.eye(4).ravel())
    plan = (ctypes.c_uint64 * 64)(*[7] * 64)
    ask = lambda: library.vxm_session_plan(session, dims, affine, plan, ctypes.byref(error))
    plan[0] = 0
    assert ask() == 1 and b"struct_size" in error.text
    library.vxm_plan_init(plan, ctypes.c_size_t(24))  # an older struct: its size and two members
    assert ask() == 0, error.text
    assert plan[0] == 24 and plan[1] > 0 and plan[2] > 7 and plan[3] == 7


def test_from_memory(library, model, scan, tmp_path):
    handle, session = opened(library, model)
    data, affine = load(scan)
    voxels = np.ascontiguousarray(data.astype(np.float32).T)  # [z][y][x]
    image = Image((ctypes.c_size_t * 3)(*data.shape), (ctypes.c_double * 16)(*affine.ravel()), 1,
                  voxels.ctypes.data)
    error = Error()
    masks = [np.full(voxels.shape, 99, dtype) for dtype in (np.uint8, np.uint16)]
    for mask in masks:
        status = library.vxm_segment_image(session, ctypes.byref(image), None, mask.ctypes.data_as(ctypes.c_void_p),
                                           mask.itemsize, None, ctypes.byref(error))
        assert status == 0, error.text
    assert run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz").code == 0
    expected = load(tmp_path / "m.nii.gz")[0].T
    for mask in masks:
        assert np.array_equal(mask, expected)

    # What a caller gets wrong is an error, never a crash.
    bad = voxels.copy()
    bad[1, 2, 3] = np.nan
    image.voxels = bad.ctypes.data
    assert library.vxm_segment_image(session, ctypes.byref(image), None, masks[0].ctypes.data_as(ctypes.c_void_p), 1,
                                     None, ctypes.byref(error)) == 2
    image.voxels = voxels.ctypes.data
    for field, value in (("dims", (ctypes.c_size_t * 3)(0, 1, 1)), ("affine", (ctypes.c_double * 16)()),
                         ("channels", 2)):
        broken = Image.from_buffer_copy(image)
        setattr(broken, field, value)
        assert library.vxm_segment_image(session, ctypes.byref(broken), None,
                                         masks[0].ctypes.data_as(ctypes.c_void_p), 1, None, ctypes.byref(error)) == 2
    assert library.vxm_segment_image(session, ctypes.byref(image), None, masks[0].ctypes.data_as(ctypes.c_void_p), 3,
                                     None, ctypes.byref(error)) == 1
    library.vxm_session_free(session)
    library.vxm_model_close(handle)


def test_options_need_their_init(library, model, tmp_path):
    handle, session = opened(library, model)
    error = Error()
    zeros = (ctypes.c_char * 256)()
    save(tmp_path / "s.nii.gz")
    status = library.vxm_segment_file(session, str(tmp_path / "s.nii.gz").encode(), str(tmp_path / "m.nii.gz").encode(),
                                      zeros, None, ctypes.byref(error))
    assert status == 1 and b"struct_size" in error.text
    # A program built against a shorter struct: only struct_size and the first members are read.
    short = (ctypes.c_size_t * 4)(16, 0, 0xdeadbeef, 0xdeadbeef)
    status = library.vxm_segment_file(session, str(tmp_path / "s.nii.gz").encode(), str(tmp_path / "m.nii.gz").encode(),
                                      short, None, None)
    assert status == 0 and files(tmp_path) == ["m.json", "m.nii.gz", "m.tsv", "s.nii.gz"]
    library.vxm_session_free(session)
    library.vxm_model_close(handle)


def test_releases_take_null(library):
    for name in ("vxm_free", "vxm_model_close", "vxm_session_free", "vxm_result_free", "vxm_batch_close"):
        getattr(library, name)(None)


def test_cancelling(library, model, tmp_path):
    """A progress callback that says stop: status 7, and no file."""
    handle, session = opened(library, model)
    options = (ctypes.c_char * 512)()
    library.vxm_segment_options_init(options, ctypes.c_size_t(SEGMENT_OPTIONS))
    # user_data, log and progress are the last three pointers.
    total = SEGMENT_OPTIONS
    stages = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

    @kind
    def stop(_, progress):
        stages.append(progress)
        return len(stages) > 3

    ctypes.memmove(ctypes.addressof(options) + total - ctypes.sizeof(ctypes.c_void_p),
                   ctypes.byref(ctypes.c_void_p.from_buffer(stop)), ctypes.sizeof(ctypes.c_void_p))
    save(tmp_path / "s.nii.gz")
    error = Error()
    status = library.vxm_segment_file(session, str(tmp_path / "s.nii.gz").encode(), str(tmp_path / "m.nii.gz").encode(),
                                      options, None, ctypes.byref(error))
    assert status == 7 and files(tmp_path) == ["s.nii.gz"]
    library.vxm_session_free(session)
    library.vxm_model_close(handle)


SIDECARS = SEGMENT_OPTIONS + 4  # behind the callbacks and "anonymous"


def test_masks_without_sidecars(library, model, scan, tmp_path):
    handle, session = opened(library, model)
    options, error = (ctypes.c_char * 512)(), Error()
    flag = ctypes.c_int.from_buffer(options, SIDECARS)
    library.vxm_segment_options_init(options, ctypes.c_size_t(SIDECARS + 4))
    assert flag.value == 1
    out = tmp_path / "out"
    out.mkdir()

    def segment(name):
        return library.vxm_segment_file(session, str(scan).encode(), str(out / name).encode(), options, None,
                                        ctypes.byref(error))

    assert segment("a.nii.gz") == 0 and files(out) == ["a.json", "a.nii.gz", "a.tsv"]
    flag.value = 0
    (out / "b.json").write_text("another's")  # no sidecar of ours: it may stay
    assert segment("b.nii.gz") == 0, error.text
    assert files(out) == ["a.json", "a.nii.gz", "a.tsv", "b.json", "b.nii.gz"]
    assert (out / "b.json").read_text() == "another's"
    assert (out / "a.nii.gz").read_bytes() == (out / "b.nii.gz").read_bytes()
    assert segment("b.nii.gz") == 4 and b"exists" in error.text
    # A program that was built before there was this member.
    library.vxm_segment_options_init(options, ctypes.c_size_t(SEGMENT_OPTIONS))
    assert segment("c.seg.nrrd") == 0 and {"c.json", "c.seg.nrrd"} < set(files(out))
    # Nothing could confirm what a batch would skip.
    library.vxm_segment_options_init(options, ctypes.c_size_t(SIDECARS + 4))
    flag.value = 0
    batch, opened_batch = (ctypes.c_char * 256)(), ctypes.c_void_p()
    library.vxm_batch_options_init(batch, ctypes.c_size_t(8 * 8 + 6 * 4 + 2 * 8))
    ctypes.c_int.from_buffer(batch, 8 * 8 + 3 * 4).value = 1  # resume
    assert library.vxm_batch_open(batch, options, ctypes.byref(opened_batch), ctypes.byref(error)) == 1
    assert b"sidecars" in error.text and not opened_batch.value
    library.vxm_session_free(session)
    library.vxm_model_close(handle)
