"""The statistics table of a run as a table node."""
import math

import pytest
from conftest import nodes
from mrml import SAMPLE
from VoxMambaLib import Importer

LINES = [["label", "value", "voxels", "ml", "mean", "sd"],
         ["hippocampe antérieur", "1", "5000000000", "1.729", "105.25", "20.5"],
         ["12", "40000", "0", "0", "nan", ""]]  # a name of digits; a label that was not found has no intensities


def write(path, separator, lines=LINES):
    path.write_text("".join(separator.join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def column(table, name):
    values = table.GetTable().GetColumnByName(name)
    return [values.GetValue(i) for i in range(values.GetNumberOfValues())]


@pytest.mark.parametrize("ending, separator", [("tsv", "\t"), ("csv", ",")])
def test_table(app, scene, tmp_path, ending, separator):
    volume = app.io_manager.load_volumes(SAMPLE)[0]
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, volume)
    table = Importer.import_statistics(scene, write(tmp_path / f"é.{ending}", separator), "VoxMamba statistics", volume)
    assert table.GetName() == "VoxMamba statistics" and table.GetLocked() and table.GetStorageNode() is None
    assert [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())] == LINES[0]
    assert column(table, "label") == ["hippocampe antérieur", "12"]
    assert column(table, "value") == [1, 40000] and column(table, "voxels") == [5e9, 0] and column(table, "ml") == [1.729, 0]
    assert column(table, "mean")[0] == 105.25 and column(table, "sd")[0] == 20.5
    assert math.isnan(column(table, "mean")[1]) and math.isnan(column(table, "sd")[1])
    assert table.GetUseColumnTitleAsColumnHeader() and table.GetColumnTitle("ml") == "Volume [ml]"
    assert table.GetColumnUnitLabel("ml") == "ml"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(table)) == study


def test_other_files_leave_nothing(scene, tmp_path):
    before = nodes(scene)
    other = write(tmp_path / "other.tsv", "\t", [["index", "name", "color"], ["1", "anterior", "#e67850"]])
    empty = write(tmp_path / "empty.tsv", "\t", [])
    for path in (other, empty, tmp_path / "gone.tsv"):
        with pytest.raises(Importer.ImportFailed, match=path.name):
            Importer.import_statistics(scene, path, "statistics")
        assert nodes(scene) == before
