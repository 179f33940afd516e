#!/usr/bin/env python3
"""Hold the NIfTI reader and writer (nifti_tool) against nibabel and SimpleITK.

Run with pytest, or as a script: exit 77 when a package is missing. NIFTI_TOOL names the program.
"""
import itertools
import os
import subprocess
import sys

try:
    import nibabel as nib
    import numpy as np
    import pytest
    import SimpleITK as sitk
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

TOOL = os.environ.get("NIFTI_TOOL", "nifti_tool")
DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
CODES = ["".join(c) for axes in itertools.permutations(["RL", "AP", "SI"]) for c in itertools.product(*axes)]


def tool(*args, fails=False):
    done = subprocess.run([TOOL, *map(str, args)], capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stderr
    if fails:
        assert done.returncode == 2, (done.returncode, done.stderr)
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr
    assert done.stderr == ""
    facts = {"warnings": []}
    for line in done.stdout.splitlines():
        key, value = line.split(" ", 1)
        if key == "warning":
            facts["warnings"].append(value)
        else:
            facts[key] = value
    return facts


def read(path, tmp_path, verb="read"):
    raw = tmp_path / "voxels.raw"
    facts = tool(verb, path, raw)
    dims = tuple(map(int, facts["dims"].split()))
    affine = np.array(facts["affine"].split(), float).reshape(3, 4)
    data = np.fromfile(raw, np.float32 if verb == "read" else np.uint16).reshape(dims[::-1]).T
    return data, affine, facts


def random_voxels(dtype, shape, rng):
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, shape).astype(dtype)
    info = np.iinfo(dtype)
    data = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    data.flat[0], data.flat[1] = info.min, info.max
    return data


def random_affine(rng, shear=0.0):
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = rotation * rng.uniform(0.4, 4, 3)
    if shear:
        matrix = matrix @ (np.eye(3) + shear * np.triu(rng.uniform(0.5, 1, (3, 3)), 1))
    return nib.affines.from_matvec(matrix, rng.uniform(-150, 150, 3))


def code_affine(code, rng):
    """An affine along the axes with the given codes."""
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(code):
        row = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}[letter]
        matrix[row, column] = (1 if letter in "RAS" else -1) * (0.7, 1.3, 2.9)[column]
    return nib.affines.from_matvec(matrix, rng.uniform(-150, 150, 3))


def save(path, data, affine, kind=nib.Nifti1Image, order="<", change=None):
    header = kind.header_class(endianness=order)
    image = kind(data, affine, header)
    image.header.set_data_dtype(data.dtype)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
    if change:  # in the .nii itself: nibabel would make codes and transforms agree
        header = nib.load(path).header.copy()
        change(header)
        raw = bytearray(path.read_bytes())
        raw[:len(header.binaryblock)] = header.binaryblock
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_orders_versions(kind, order, dtype, tmp_path):
    rng = np.random.default_rng(len(dtype))
    data = random_voxels(dtype, (7, 5, 3), rng)
    for name in ("a.nii", "a.nii.gz"):
        path = save(tmp_path / name, data, random_affine(rng), kind, order)
        image = nib.load(path)
        assert image.header.endianness == order and image.get_data_dtype() == np.dtype(dtype).newbyteorder(order)
        got, affine, facts = read(path, tmp_path)
        np.testing.assert_array_equal(got, image.get_fdata().astype(np.float32))
        np.testing.assert_allclose(affine, image.affine[:3], rtol=0, atol=1e-12)
        assert facts["dtype"] == dtype and facts["format"] == name[2:]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16"])
def test_well_packed_small_voxels(order, dtype, tmp_path):
    """Large enough, and packed well enough, to be inflated into the image's own memory, in several blocks."""
    data = (np.arange(70 * 80 * 90) // 97 % 251 - (120 if dtype[0] == "i" else 0)).astype(dtype).reshape(70, 80, 90)
    path = save(tmp_path / "a.nii.gz", data, np.eye(4), order=order)
    got, _, _ = read(path, tmp_path)
    np.testing.assert_array_equal(got, data.astype(np.float32))


@pytest.mark.parametrize("slope,inter", [(0.37, -1024.5), (-2, 10), (0, 5), (np.nan, 5), (np.inf, np.nan), (1e-3, 0)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_scaling(slope, inter, order, tmp_path):
    rng = np.random.default_rng(1)
    data = random_voxels("int16", (6, 5, 4), rng)
    path = save(tmp_path / "a.nii", data, np.eye(4), order=order)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([slope, inter], order + "f4").tobytes()
    path.write_bytes(raw)
    got, _, _ = read(path, tmp_path)
    np.testing.assert_array_equal(got, nib.load(path).get_fdata().astype(np.float32))


def test_scaling_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16), np.eye(4))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2, np.nan], "<f4").tobytes()
    path.write_bytes(raw)
    assert "scl_inter" in tool("read", path, tmp_path / "x", fails=True)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_transforms(kind, tmp_path):
    """nibabel's choice among sform, qform and spacing, for every pair of codes; half turns among the rotations."""
    rng = np.random.default_rng(2)
    for i in range(60):
        q_code, s_code = i % 3, i // 3 % 3
        affine = random_affine(rng)
        if i % 4 == 3:  # a half turn about a random axis, to rounding
            axis = rng.normal(size=3)
            axis /= np.linalg.norm(axis)
            affine[:3, :3] = (2 * np.outer(axis, axis) - np.eye(3)) * rng.uniform(0.5, 3, 3)
        other = random_affine(rng)

        def change(header):
            header.set_qform(affine, q_code)
            header.set_sform(other, s_code)
            header["qform_code"], header["sform_code"] = q_code, s_code
            header.set_xyzt_units(("mm", "unknown")[i % 2])

        path = save(tmp_path / "a.nii", np.zeros((9, 8, 7), np.uint8), affine, kind, "<>"[i % 2], change)
        image = nib.load(path)
        _, got, facts = read(path, tmp_path)
        np.testing.assert_allclose(got, image.affine[:3], rtol=0, atol=1e-10)
        warned = " ".join(facts["warnings"])
        assert ("disagree" in warned) == (q_code > 0 and s_code > 0)
        assert ("neither sform nor qform" in warned) == (q_code == 0 and s_code == 0)


@pytest.mark.parametrize("unit,factor", [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_units(unit, factor, tmp_path):
    affine = random_affine(np.random.default_rng(4))
    for q_code, s_code in ((1, 0), (0, 1), (0, 0)):
        def change(header):
            header.set_xyzt_units(unit)
            header["qform_code"], header["sform_code"] = q_code, s_code

        path = save(tmp_path / "a.nii", np.zeros((4, 3, 2), np.uint8), affine, change=change)
        _, got, facts = read(path, tmp_path)
        np.testing.assert_allclose(got, nib.load(path).affine[:3] * factor, rtol=1e-12, atol=1e-12)
        assert (f"multiplied by {factor:g} " in " ".join(facts["warnings"])) == (factor != 1)


def test_shear_is_told(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((4, 3, 2), np.uint8), np.eye(4))
    assert read(path, tmp_path)[2]["warnings"] == []
    affine = random_affine(np.random.default_rng(5), shear=0.2)
    image = nib.Nifti1Image(np.zeros((4, 3, 2), np.uint8), affine)  # nibabel gives it no qform
    nib.save(image, path)
    warnings = read(path, tmp_path)[2]["warnings"]
    assert len(warnings) == 1 and "sheared" in warnings[0]


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pairs(kind, suffix, tmp_path):
    rng = np.random.default_rng(6)
    data = random_voxels("int16", (5, 6, 7), rng)
    image = kind(data, random_affine(rng))
    nib.save(image, tmp_path / f"a.img{suffix}")
    for name in (f"a.img{suffix}", f"a.hdr{suffix}"):
        got, affine, _ = read(tmp_path / name, tmp_path)
        np.testing.assert_array_equal(got, data.astype(np.float32))
        np.testing.assert_allclose(affine, nib.load(tmp_path / f"a.img{suffix}").affine[:3], atol=1e-12)
    (tmp_path / f"a.img{suffix}").unlink()
    assert ".img" in tool("read", tmp_path / f"a.hdr{suffix}", tmp_path / "x", fails=True)


def test_trailing_ones_and_extensions(tmp_path):
    data = random_voxels("uint8", (5, 6, 7), np.random.default_rng(7))
    image = nib.Nifti1Image(data.reshape(5, 6, 7, 1, 1), np.diag([1, 2, 3, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"some words of the scanner" * 9))
    nib.save(image, tmp_path / "a.nii.gz")
    got, _, _ = read(tmp_path / "a.nii.gz", tmp_path)
    np.testing.assert_array_equal(got, data.astype(np.float32))


def geometry_bytes(path):
    """The header fields that place the grid, as they lie in the file."""
    header = nib.load(path).header
    names = ["pixdim", "qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
             "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"]
    return {name: np.asarray(header[name]).astype(np.asarray(header[name]).dtype.newbyteorder("<")).tobytes()
            for name in names}


def check_mask(source, mask, at, value):
    image, result = nib.load(source), nib.load(mask)
    data = np.asarray(result.dataobj)
    assert data.dtype == (np.uint8 if value < 256 else np.uint16)
    assert np.argwhere(data).tolist() == [list(at)] and data[at] == value
    assert result.shape == image.shape
    np.testing.assert_array_equal(result.affine, image.affine)
    assert geometry_bytes(source) == geometry_bytes(mask)


@pytest.mark.parametrize("code", CODES)
def test_marked_voxel_on_all_codes(code, tmp_path):
    rng = np.random.default_rng(8)
    source = save(tmp_path / "s.nii.gz", random_voxels("int16", (9, 8, 7), rng), code_affine(code, rng))
    assert "".join(nib.aff2axcodes(nib.load(source).affine)) == code
    tool("mark", source, tmp_path / "m.nii.gz", 5, 1, 6, 3)
    check_mask(source, tmp_path / "m.nii.gz", (5, 1, 6), 3)
    a, b = sitk.ReadImage(str(source)), sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    assert b.GetPixel(5, 1, 6) == 3 and b.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert (a.GetOrigin(), a.GetSpacing(), a.GetDirection()) == (b.GetOrigin(), b.GetSpacing(), b.GetDirection())


def test_marked_voxel_on_oblique_grids(tmp_path):
    rng = np.random.default_rng(9)
    for i in range(40):
        kind, order = (nib.Nifti1Image, nib.Nifti2Image)[i % 2], "<>"[i // 2 % 2]
        affine = random_affine(rng, shear=0.2 if i % 5 == 4 else 0)

        def change(header):
            header.set_qform(affine, i // 4 % 3)
            header["sform_code"] = i % 4
            header.set_xyzt_units(("mm", "micron", "meter")[i % 3], "sec")

        source = save(tmp_path / "s.nii", random_voxels("float32", (9, 8, 7), rng), affine, kind, order, change)
        at = tuple(int(rng.integers(n)) for n in (9, 8, 7))
        tool("mark", source, tmp_path / "m.nii", *at, 300 + i)
        check_mask(source, tmp_path / "m.nii", at, 300 + i)


def test_transforms_made_from_the_affine(tmp_path):
    rng = np.random.default_rng(10)
    for i in range(40):
        sheared = i % 4 == 3
        affine = random_affine(rng, shear=0.1 if sheared else 0)
        if i % 4 == 0:
            affine = code_affine(CODES[i], rng)
        source = save(tmp_path / "s.nii", random_voxels("int16", (90, 80, 70), rng), affine)
        tool("bare", source, tmp_path / "m.nii", 50, 11, 64, 7)
        image, mask = nib.load(source), nib.load(tmp_path / "m.nii")
        assert np.argwhere(np.asarray(mask.dataobj)).tolist() == [[50, 11, 64]]
        corner = np.array([89, 79, 69, 1])
        assert np.abs(mask.affine @ corner - image.affine @ corner).max() <= 1e-4
        q, code = mask.header.get_qform(coded=True)
        assert int(mask.header["sform_code"]) == 1 and code == (0 if sheared else 1)
        if not sheared:
            assert np.abs(q @ corner - image.affine @ corner).max() <= 1e-2  # float32 quaternions are that coarse
            seen = sitk.ReadImage(str(tmp_path / "m.nii"))
            point = np.array(seen.TransformIndexToPhysicalPoint((89, 79, 69))) * (-1, -1, 1)
            assert np.abs(point - (image.affine @ corner)[:3]).max() <= 1e-2


def test_masks_are_read(tmp_path):
    rng = np.random.default_rng(11)
    for dtype, top in (("uint8", 256), ("int16", 200), ("uint16", 65536), ("float32", 5), ("float64", 65536)):
        data = rng.integers(0, top, (9, 8, 7)).astype(dtype)
        path = save(tmp_path / "m.nii.gz", data, random_affine(rng))
        got, _, facts = read(path, tmp_path, "mask")
        np.testing.assert_array_equal(got, data.astype(np.uint16))
        assert facts["bytes"] == ("2" if data.max() > 255 else "1")
        tool("copy", path, tmp_path / "c.nii.gz")
        np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "c.nii.gz").dataobj), data)
    for value in (0.5, -1, 65536, np.nan, 1e300):
        data = np.zeros((4, 4, 4))
        data[2, 1, 3] = value
        error = tool("mask", save(tmp_path / "m.nii", data, np.eye(4)), tmp_path / "x", fails=True)
        assert "(2, 1, 3)" in error and "whole numbers" in error


def test_written_files_repeat(tmp_path):
    data = np.random.default_rng(12).integers(0, 3, (30, 30, 30)).astype(np.uint8)
    source = save(tmp_path / "s.nii.gz", data, np.eye(4))
    for name in ("a.nii.gz", "b.nii.gz"):
        tool("copy", source, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == b"\0\0\0\0"  # no time
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "s.nii.gz"]


@pytest.mark.parametrize("name", ["p.nii", "p.nii.gz"])
def test_slices(name, tmp_path):
    rng = np.random.default_rng(13)
    source = save(tmp_path / "s.nii", random_voxels("float32", (9, 8, 7), rng), random_affine(rng))
    tool("slices", source, tmp_path / name)
    result = nib.load(tmp_path / name)
    assert result.get_data_dtype() == np.float32
    np.testing.assert_array_equal(result.get_fdata(), nib.load(source).get_fdata())
    assert geometry_bytes(source) == geometry_bytes(tmp_path / name)


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
