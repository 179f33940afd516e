"""Small volumes for the tests of the programs."""
import gzip
import os

import nibabel
import numpy as np


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
