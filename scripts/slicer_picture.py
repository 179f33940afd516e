#!/usr/bin/env python3
"""Draws a scan and its segmentation off-screen with 3D Slicer's own code: slices with the overlay, the surfaces in 3D.

    voxmamba segment sample-data/hippocampus_380.nii.gz -m hippocampus -o mask.seg.nrrd
    scripts/slicer_picture.py sample-data/hippocampus_380.nii.gz mask.seg.nrrd docs/images/slicer.png --zoom 1.15

Needs the packages of tests/requirements.txt (slicer-core, trame-slicer, Pillow) and Debian's libosmesa6, but no display.
"""
import argparse
import os
import pathlib
import sys

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")  # before VTK is loaded
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "gui-plugin/SlicerVoxMamba/VoxMamba"))

import numpy as np  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from trame_slicer.core import SlicerApp  # noqa: E402
from trame_slicer.views import SliceView, ThreeDView  # noqa: E402
from VoxMambaLib import Importer  # noqa: E402
from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402

TILE = (464, 388)  # pixels of one of the four views
BAR = 20           # height of the coloured bar above it
GAP = 4
# Slicer's slice views: orientation, colour of the bar.
SLICES = {"R": ("Axial", (243, 74, 51)), "G": ("Coronal", (110, 176, 75)), "Y": ("Sagittal", (237, 213, 76))}
BAR_3D = (116, 120, 190)
SKY = ([193, 195, 232], [116, 120, 190])


def labelled_points(segmentation):
    """RAS positions (mm) of every segment's voxels, an array (voxels, 3) a segment."""
    points = []
    for i in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(i)
        image = segment.GetRepresentation("Binary labelmap")
        if image.IsEmpty():
            points.append(np.empty((0, 3)))
            continue
        extent, to_world = image.GetExtent(), vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(to_world)
        shape = [extent[2 * k + 1] - extent[2 * k] + 1 for k in (2, 1, 0)]
        values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        ijk = np.argwhere(values == segment.GetLabelValue())[:, ::-1] + np.array(extent[::2])
        affine = np.array([[to_world.GetElement(r, c) for c in range(4)] for r in range(3)])
        points.append(ijk @ affine[:, :3].T + affine[:, 3])
    return points


def best_offset(points, normal, step):
    """The offset along a slice's normal at which most segments are shown well, and then most of them."""
    offsets = [p @ normal for p in points if len(p)]
    low = min(o.min() for o in offsets) - step / 2
    bins = max(1, round((max(o.max() for o in offsets) + step / 2 - low) / step))
    counts = np.array([np.histogram(o, bins, (low, low + bins * step))[0] for o in offsets])
    well = (counts > 0.4 * counts.max(axis=1, keepdims=True)).sum(axis=0)
    best = max(range(bins), key=lambda b: (well[b], counts[:, b].sum()))
    return low + (best + 0.5) * step


def picture_of(view):
    """The view's pixels."""
    view.render_window().Render()
    image = vtk.vtkImageData()
    slicer.vtkMRMLLayerDisplayableManager.RenderWindowBufferToImage(view.render_window(), image)
    width, height, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3]
    return Image.fromarray(np.ascontiguousarray(pixels))


def show_intensities(volume, window, threshold):
    display = volume.GetDisplayNode()
    if window:
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(*window)
    if threshold is not None:
        display.SetLowerThreshold(threshold)
        display.ApplyThresholdOn()


def slice_view(app, volume, orientation, zoom):
    view = SliceView(scene=app.scene, app_logic=app.app_logic, name=orientation)
    view.update_size(*TILE)
    view.set_orientation(orientation)
    view.set_background_volume_id(volume.GetID())
    view.fit_view_to_content()
    view.zoom(1 - 1 / zoom)
    view.render()
    return view


def slice_picture(view, points):
    everything = np.concatenate(points)
    view.get_view_node().JumpSliceByCentering(*((everything.min(axis=0) + everything.max(axis=0)) / 2))
    to_ras = view.get_view_node().GetSliceToRAS()
    normal = np.array([to_ras.GetElement(r, 2) for r in range(3)])
    view.set_slice_value(best_offset(points, normal, view.get_slice_step()))
    return picture_of(view)


def surface_picture(app, node, slice_in_3d, options):
    """The surfaces, seen from in front and turned, with one slice of the scan among them."""
    if slice_in_3d:
        slice_in_3d.set_visible_in_3d(True)
    view = ThreeDView(scene=app.scene, app_logic=app.app_logic, name="3D")
    view.update_size(*TILE)
    view.set_background_gradient_color(*SKY)
    view.renderer().GradientBackgroundOn()
    view.set_box_visible(False)
    view.set_orientation_marker(slicer.vtkMRMLAbstractViewNode.OrientationMarkerTypeAxes,
                                slicer.vtkMRMLAbstractViewNode.OrientationMarkerSizeSmall)
    view.fit_view_to_content()
    camera, bounds = view.get_camera_node().GetCamera(), [0.0] * 6
    camera.Azimuth(options.azimuth)
    camera.Elevation(options.elevation)
    camera.OrthogonalizeViewUp()
    node.GetRASBounds(bounds)
    view.renderer().ResetCamera(bounds)
    camera.Zoom(options.zoom_3d)
    view.renderer().ResetCameraClippingRange()
    return picture_of(view)


def legend(picture, segmentation, volumes_ml):
    """Names, colours and volumes of the segments, on the upper left of the 3D view."""
    font, draw = ImageFont.load_default(17), ImageDraw.Draw(picture, "RGBA")
    lines = []
    for i in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(i)
        lines.append((segment.GetName(), f"{volumes_ml[i]:.1f} ml", tuple(round(255 * c) for c in segment.GetColor())))
    width = max(draw.textlength(name, font) for name, _, _ in lines) + 130
    draw.rounded_rectangle((12, 12, 12 + width, 22 + 26 * len(lines)), 6, fill=(30, 32, 60, 150))
    for row, (name, volume, color) in enumerate(lines):
        y = 30 + 26 * row
        draw.rounded_rectangle((24, y - 8, 40, y + 8), 3, fill=color)
        draw.text((50, y), name, (255, 255, 255), font, "lm")
        draw.text((width, y), volume, (225, 225, 240), font, "rm")


def compose(pictures):
    """Four views as Slicer lays them out: letter, colour of the bar, picture; by rows."""
    font = ImageFont.load_default(14)
    cell = (TILE[0] + GAP, TILE[1] + BAR + GAP)
    out = Image.new("RGB", (2 * cell[0] - GAP, 2 * cell[1] - GAP), (40, 40, 46))
    draw = ImageDraw.Draw(out)
    for n, (name, color, picture) in enumerate(pictures):
        x, y = n % 2 * cell[0], n // 2 * cell[1]
        draw.rectangle((x, y, x + TILE[0] - 1, y + BAR - 1), fill=color)
        draw.text((x + 10, y + BAR // 2), name, (0, 0, 0), font, "lm")
        out.paste(picture, (x, y + BAR))
    return out


def draw_case(scan, result, options):
    """The picture (PIL) of a scan and its .seg.nrrd; options: of the command line."""
    app = SlicerApp()
    volume = app.io_manager.load_volumes(str(scan))[0]
    show_intensities(volume, options.window, options.threshold)
    views = {name: slice_view(app, volume, orientation, options.zoom) for name, (orientation, _) in SLICES.items()}
    node = Importer.import_segmentation(app.scene, str(result), volume)  # after the views: drawn over the scan
    segmentation = node.GetSegmentation()
    points = labelled_points(segmentation)
    if not any(len(p) for p in points):
        raise SystemExit(f"{result}: there is no voxel to draw")
    node.GetDisplayNode().SetOpacity2DFill(0.35)
    node.GetDisplayNode().SetSliceIntersectionThickness(3)
    node.CreateClosedSurfaceRepresentation()

    tiles = {name: (f"{name}   {orientation}", color, slice_picture(views[name], points)) for name, (orientation, color) in SLICES.items()}
    surfaces = surface_picture(app, node, views.get(options.slice_in_3d), options)
    legend(surfaces, segmentation, [len(p) * np.prod(volume.GetSpacing()) / 1000 for p in points])
    return compose([tiles["R"], ("1   3D", BAR_3D, surfaces), tiles["G"], tiles["Y"]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", help="volume that Slicer reads")
    parser.add_argument("result", help="its .seg.nrrd")
    parser.add_argument("output", help="PNG to write")
    parser.add_argument("--azimuth", type=float, default=35, help="degrees to turn the 3D camera to the patient's left (default %(default)s)")
    parser.add_argument("--elevation", type=float, default=25, help="degrees to lift it (default %(default)s)")
    parser.add_argument("--zoom", type=float, default=1, help="of the slices (default %(default)s)")
    parser.add_argument("--zoom-3d", type=float, default=1, help="of the 3D view (default %(default)s)")
    parser.add_argument("--slice-in-3d", choices=[*SLICES, "none"], default="R", help="which slice stands in 3D (default %(default)s)")
    parser.add_argument("--window", type=float, nargs=2, metavar=("BLACK", "WHITE"), help="intensities (default: Slicer's choice)")
    parser.add_argument("--threshold", type=float, help="draw nothing of the scan below this intensity (air of a CT)")
    options = parser.parse_args()
    draw_case(options.scan, options.result, options).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
