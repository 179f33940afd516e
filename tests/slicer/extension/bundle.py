"""A folder like the one in scripts/package.sh's tarball, of the programs of this build (their libraries are this machine's)."""
import os
import shutil

import support

MODELS = os.path.join(support.ROOT, "models")


def shipped():
    """The models and their cards."""
    return [name for name in os.listdir(MODELS) if name.endswith((".safetensors", ".md"))]


def make(folder):
    """folder is created; gives its path."""
    for name, source in (("bin/voxmamba", support.PROGRAM), ("cli-modules/VoxMambaSegment", support.SEGMENT),
                         ("cli-modules/VoxMambaSegment.xml", support.XML),
                         ("lib/voxmamba/voxmamba-dicom", support.DICOM_HELPER),
                         *((f"share/voxmamba/models/{name}", os.path.join(MODELS, name)) for name in shipped()),
                         ("share/doc/voxmamba/copyright", os.path.join(support.ROOT, "packaging", "copyright")),
                         # What an extension has no use for.
                         ("include/voxmamba.h", os.path.join(support.ROOT, "src", "api", "voxmamba.h")),
                         ("lib/pkgconfig/voxmamba.pc", support.XML)):
        if source:
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy(source, path)
    return str(folder)
