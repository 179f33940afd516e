"""Volume nodes: which can be segmented, what is worth saying about them, and how they get into a file.

The file is NRRD, uncompressed: its header holds the grid as text with all digits of a double, where NIfTI rounds it to float
(1e-5 mm at 200 mm), and any three axes, also ones that are not perpendicular.
"""


class VolumeRefused(Exception):
    """The text says why, and what to do."""


def check(node, scene):
    """Notes for the user about a volume that can be segmented; VolumeRefused for one that cannot."""
    if node is None:
        raise VolumeRefused("Choose a volume")
    name = node.GetName()
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise VolumeRefused(f"{name} is a label map: choose the scan that it was drawn on")
    image = node.GetImageData() if node.IsA("vtkMRMLVolumeNode") else None
    if image is None or min(image.GetDimensions()) < 1:
        raise VolumeRefused(f"{name} holds no image: load it again, or choose another volume")
    values = image.GetNumberOfScalarComponents()
    if values != 1:
        raise VolumeRefused(f"{name} has {values} values in a voxel (colours, vectors, or frames of a series): make a volume of one of them "
                            "first (for colours: the module Vector to Scalar Volume)")
    return _transform_notes(node) + _sequence_notes(node, scene)


def export(node, path, scene):
    """Writes the volume as it is without its parent transform. Neither the node nor its own storage node changes."""
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    try:
        storage.SetFileName(path)
        storage.SetUseCompression(0)
        if not storage.WriteData(node):
            raise VolumeRefused(f"{node.GetName()} could not be written into the temporary folder: is its disk full?")
    finally:
        scene.RemoveNode(storage)


def _transform_notes(node):
    transform = node.GetParentTransformNode()
    if transform is None:
        return []
    note = (f"{node.GetName()} is under the transform {transform.GetName()}: it is segmented as it is without, and the segmentation "
            "is put under the same transform, so that it lies on the volume")
    if not transform.IsTransformToWorldLinear():
        note += ". The transform bends space: harden it first if the bent image is the one that is to be segmented"
    return [note]


def _sequence_notes(node, scene):
    for i in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = scene.GetNthNodeByClass(i, "vtkMRMLSequenceBrowserNode")
        if browser.IsProxyNodeID(node.GetID()):
            return [f"{node.GetName()} is a sequence: only the item that is shown now is segmented "
                    f"(number {browser.GetSelectedItemNumber() + 1})"]
    return []
