"""real_volumes.py FOLDER...: every NIfTI and NRRD file under folders of real ones, beside nibabel and pynrrd.

Each must be read, with their voxels, and with every corner of the grid within 1e-3 mm of theirs. Prints a line a file."""
import os
import sys

import oracle
from oracle import np

try:
    import nibabel
    import nrrd
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

def of_nifti(path):
    """Voxels [x][y][z] as float32, RAS affine."""
    image = nibabel.load(path)
    return image.get_fdata().astype(np.float32), image.affine


def of_nrrd(path):
    data, header = nrrd.read(path)
    assert header["space"] == "left-posterior-superior"
    affine = np.eye(4)
    if data.ndim == 3:
        affine[:3, :3], affine[:3, 3] = header["space directions"].T, header["space origin"]
    return data.astype(np.float32), np.diag([-1.0, -1, 1, 1]) @ affine


READERS = {".nii.gz": of_nifti, ".nii": of_nifti, ".nrrd": of_nrrd}


def outcome(path, reader):
    read = oracle.Read(path)
    assert read.code == 0, (path, read.code, read.errors)
    voxels, affine = reader(path)
    assert read.voxels.T.shape == voxels.shape, (path, read.voxels.T.shape, voxels.shape)
    distance = oracle.corner_distance(read.affine, affine, read.voxels.shape)
    assert distance <= 1e-3, (path, f"corners {distance} mm apart")
    different = int((read.voxels.T != voxels).sum())
    assert not different, (path, f"{different} voxels differ")
    warned = "; ".join(read.warnings)
    return f"read: {voxels.shape}, corners {distance:.1e} mm apart" + (f" ({warned})" if warned else "")


def main():
    folders = [f for f in sys.argv[1:] if os.path.isdir(f)]
    if not folders:
        print("skipped: no folder of real files")
        return 77
    count = 0
    for base in folders:
        for folder, _, names in sorted(os.walk(base)):
            for name in sorted(names):
                reader = next((r for ending, r in READERS.items() if name.endswith(ending)), None)
                if reader:
                    path = os.path.join(folder, name)
                    print(f"{os.path.relpath(path, base)}: {outcome(path, reader)}")
                    count += 1
    print(count, "files")
    assert count > 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
