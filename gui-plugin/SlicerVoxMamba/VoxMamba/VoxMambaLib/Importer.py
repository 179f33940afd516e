"""Results as MRML nodes. The same code runs in 3D Slicer and in slicer-core: nodes are made by the scene, no Qt is needed.

Every import leaves the scene as it was when it fails, and says why in an ImportFailed.
"""
import os
import zlib

# Column of the statistics table -> (type, title, unit) of the table node's column.
STATISTICS_COLUMNS = {
    "label": ("string", "Segment", ""),
    "value": ("int", "Label value", ""),
    "voxels": ("double", "Voxels", ""),  # more than an int holds in a large volume
    "ml": ("double", "Volume", "ml"),
    "mean": ("double", "Mean intensity", ""),
    "sd": ("double", "SD of intensity", ""),
}


class ImportFailed(RuntimeError):
    """One line: FILE: what is wrong."""


def _check_file(path):
    if not os.path.isfile(path):
        raise ImportFailed(f"{path}: there is no such file")


class _Added:
    """The nodes that an import has put into the scene; leaving it by an exception takes them out again."""

    def __init__(self, scene):
        self.scene, self.nodes = scene, []

    def add(self, class_name, name=""):
        if name and self.scene.GetFirstNodeByName(name):
            name = self.scene.GenerateUniqueName(name)
        node = self.scene.AddNewNodeByClass(class_name, name)
        if node is None:
            raise ImportFailed(f"this version of Slicer has no {class_name}")
        self.nodes.append(node)
        return node

    def remove(self, node):
        self.nodes.remove(node)
        self.scene.RemoveNode(node)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is None:
            return
        for node in reversed(self.nodes):
            if hasattr(node, "GetDisplayNode"):
                displays = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
                for display in displays:
                    if display is not None:
                        self.scene.RemoveNode(display)
            self.scene.RemoveNode(node)


def _read(added, storage_class, path, node):
    """Reads a file into the node by Slicer's storage node. It does not stay with the node: the file is a run's own and will be gone,
    and without one Slicer asks where to save."""
    storage = added.add(storage_class)
    storage.SetFileName(os.fspath(path))
    done = storage.ReadData(node)
    messages = storage.GetUserMessages()
    reason = f" ({messages.GetNthMessageText(0).strip()})" if messages.GetNumberOfMessages() else ""
    added.remove(storage)
    if not done:
        raise ImportFailed(f"{path}: Slicer cannot read it{reason}")


def _check_nrrd(path):
    """Slicer ends itself over an NRRD file that is cut off (an exception of ITK's that nothing catches), so we look before it does."""
    cut_off = ImportFailed(f"{path}: it is no whole .seg.nrrd file")
    with open(path, "rb") as file:
        line, fields = file.readline(1 << 16), {}
        if not line.startswith(b"NRRD"):
            raise cut_off
        while line.strip():
            line = file.readline(1 << 20)
            if not line.endswith(b"\n"):
                raise cut_off
            key, _, value = line.strip().partition(b": ")
            fields[key] = value
        if fields.get(b"encoding") in (b"gzip", b"gz") and not _gzip_is_whole(file):
            raise cut_off


def _gzip_is_whole(file):
    inflater, rest = zlib.decompressobj(31), file.read(1 << 20)
    try:
        while rest and not inflater.eof:
            inflater.decompress(rest, 1 << 24)
            rest = inflater.unconsumed_tail or file.read(1 << 20)
    except zlib.error:
        return False
    return inflater.eof


def _largest_shift(one, other, dims):
    """An upper bound of how far (in mm, along an axis) a voxel of a grid of dims lies apart under two vtkMatrix4x4."""
    def apart(r, c):
        return abs(one.GetElement(r, c) - other.GetElement(r, c))

    return max(apart(r, 3) + sum(apart(r, c) * dims[c] for c in range(3)) for r in range(3))


def _snap_to(node, source_node):
    """Gives the labelmaps the source's very geometry where theirs is off by less than a hundredth of a voxel: files hold it in single
    precision or as text, and Slicer would resample, and save a layer too many."""
    import vtk

    wanted, there = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    source_node.GetIJKToRASMatrix(wanted)
    dims, spacing = source_node.GetImageData().GetDimensions(), source_node.GetSpacing()
    segmentation = node.GetSegmentation()
    for i in range(segmentation.GetNumberOfSegments()):
        labelmap = segmentation.GetNthSegment(i).GetRepresentation("Binary labelmap")
        labelmap.GetImageToWorldMatrix(there)
        if _largest_shift(wanted, there, dims) < 0.01 * min(spacing):
            labelmap.SetImageToWorldMatrix(wanted)


def _put_beside(scene, node, source_node):
    """Gives the node the subject-hierarchy parent of the source (its study, its folder), where there is a hierarchy."""
    hierarchy = scene.GetSubjectHierarchyNode()
    if hierarchy is None:
        return
    source_item = hierarchy.GetItemByDataNode(source_node)
    if not source_item:
        return
    parent = hierarchy.GetItemParent(source_item)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def import_segmentation(scene, path, source_node, name=None):
    """The vtkMRMLSegmentationNode of a .seg.nrrd that was computed from the volume source_node.

    Names, colours and codes are the file's. The reference geometry is the source's; the node stands under the source's parent
    transform, as the file knows of none, and beside it in the subject hierarchy. It has a display node and no storage node."""
    _check_file(path)
    _check_nrrd(path)
    with _Added(scene) as added:
        node = added.add("vtkMRMLSegmentationNode", name or f"{source_node.GetName()} segmentation")
        _read(added, "vtkMRMLSegmentationStorageNode", path, node)
        if node.GetSegmentation().GetNumberOfSegments() == 0:
            raise ImportFailed(f"{path}: it holds no segment")
        node.SetAndObserveTransformNodeID(source_node.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(source_node)
        if not node.GetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole()):
            raise ImportFailed(f"{source_node.GetName()}: the volume has no image")
        _snap_to(node, source_node)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        _put_beside(scene, node, source_node)
        return node


def import_statistics(scene, path, name, source_node=None):
    """The vtkMRMLTableNode of a statistics file (.tsv or .csv, STATISTICS_COLUMNS; others are kept as text). Beside source_node in the
    subject hierarchy, if one is given."""
    _check_file(path)
    with _Added(scene) as added:
        node = added.add("vtkMRMLTableNode", name)
        _read(added, "vtkMRMLTableStorageNode", path, node)
        found = [node.GetColumnName(i) for i in range(node.GetNumberOfColumns())]
        if "label" not in found:
            raise ImportFailed(f"{path}: it is no statistics table (no column \"label\")")
        for column, (kind, title, unit) in STATISTICS_COLUMNS.items():
            if column in found:
                node.SetColumnProperty(column, "nullValue", "nan" if kind == "double" else "")
                node.SetColumnProperty(column, "type", kind)  # read as text
                node.SetColumnTitle(column, f"{title} [{unit}]" if unit else title)
                node.SetColumnUnitLabel(column, unit)
        node.SetUseColumnTitleAsColumnHeader(True)
        node.SetLocked(True)
        if source_node is not None:
            _put_beside(scene, node, source_node)
        return node


def import_color_table(scene, path, name):
    """The vtkMRMLColorTableNode of one of Resources/Colors."""
    _check_file(path)
    with _Added(scene) as added:
        node = added.add("vtkMRMLColorTableNode", name)
        node.SetTypeToFile()
        _read(added, "vtkMRMLColorTableStorageNode", path, node)
        node.SetAttribute("Category", "VoxMamba")  # its place in Slicer's menus of colour tables
        return node


def load_terminologies(logic, folder):
    """Gives the .term.json files of a folder to the terminologies module's logic; the names that Slicer then lists."""
    paths = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".term.json"))
    names = []
    for path in paths:
        name = logic.LoadTerminologyFromFile(path)
        if not name:
            raise ImportFailed(f"{path}: Slicer cannot read it as a terminology")
        names.append(name)
    return names
