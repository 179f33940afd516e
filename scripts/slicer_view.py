#!/usr/bin/env python3
"""Shows a scan and its segmentation in a browser: 3D Slicer's own views, drawn off-screen here and sent as pictures.

    scripts/slicer_view.py sample-data/hippocampus_380.nii.gz mask.seg.nrrd      # http://127.0.0.1:8080

Listens on this machine only, without a password: whoever reaches the port sees the scan. The page comes from here and loads nothing from
elsewhere. Needs the packages of tests/requirements.txt (slicer-core, trame-slicer) and Debian's libosmesa6. Ctrl-C ends it.
"""
import argparse
import os
import pathlib
import sys

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")  # before VTK is loaded
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "gui-plugin/SlicerVoxMamba/VoxMamba"))

from trame.app import TrameApp  # noqa: E402
from trame.ui.vuetify3 import VAppLayout  # noqa: E402
from trame_slicer import module as trame_slicer_module  # noqa: E402
from trame_slicer.core import LayoutManager, SlicerApp  # noqa: E402
from trame_slicer.rca_view import register_rca_factories  # noqa: E402
from VoxMambaLib import Importer  # noqa: E402


class CaseView(TrameApp):
    """Four views of a case: three slices with the overlay, the surfaces in 3D."""

    def __init__(self, scan, result, server=None):
        super().__init__(server)
        self.server.enable_module(trame_slicer_module)
        self.state.trame__title = "VoxMamba"
        self.slicer = SlicerApp()
        register_rca_factories(self.slicer.view_manager, self.server)
        self.layout = LayoutManager(self.slicer.scene, self.slicer.view_manager, self.server)
        self.layout.register_layout_dict(LayoutManager.default_grid_configuration())
        self.layout.set_layout("Quad View")
        with VAppLayout(self.server) as page:
            self.layout.initialize_layout_grid(page)

        self.volume = self.slicer.io_manager.load_volumes(str(scan))[0]
        for view in self.slicer.view_manager.get_slice_views():  # before the segmentation, which is drawn over it
            view.set_background_volume_id(self.volume.GetID())
        self.segmentation = Importer.import_segmentation(self.slicer.scene, str(result), self.volume)
        self.segmentation.CreateClosedSurfaceRepresentation()
        self.slicer.display_manager.reset_views()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", help="volume that Slicer reads")
    parser.add_argument("result", help="its .seg.nrrd")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default %(default)s)")
    options = parser.parse_args()
    server = CaseView(options.scan, options.result).server
    server.controller.on_server_ready.add(lambda **_: print(f"http://127.0.0.1:{server.port}", flush=True))
    server.start(host="127.0.0.1", port=options.port, open_browser=False, show_connection_info=False, exec_mode="main")


if __name__ == "__main__":
    main()
