"""Widgets for VoxMambaWidget where there is no Qt: made from VoxMamba.ui by name, with the properties, methods and signals of
PythonQt's that the module uses, no others (an AttributeError is a finding). Added to stand_ins.py's."""
import inspect
import types
import xml.etree.ElementTree as ElementTree

CHECKED, UNCHECKED = 2, 0


class Widget:
    def __init__(self):
        self.enabled, self.toolTip, self.visible, self.text, self._slots = True, "", True, "", {}

    def connect(self, signal, slot):
        self._slots[signal] = slot

    def emit(self, signal, *values):
        """As PythonQt: a slot gets as many of the values as it takes."""
        slot = self._slots.get(signal)
        if slot:
            slot(*values[:len(inspect.signature(slot).parameters)])

    def setText(self, text):
        assert isinstance(text, str)
        self.text = text

    def setVisible(self, visible):
        self.visible = visible

    def click(self):
        assert self.enabled
        self.emit("clicked(bool)", False)


class ComboBox(Widget):
    def __init__(self):
        super().__init__()
        self.items, self.currentIndex = [], -1

    def clear(self):
        self.items = []
        self.setCurrentIndex(-1)

    def addItem(self, text):
        self.items.append(text)
        if len(self.items) == 1:
            self.setCurrentIndex(0)

    def setCurrentIndex(self, index):
        if index != self.currentIndex:
            self.currentIndex = index
            self.emit("currentIndexChanged(int)", index)


class ListItem:
    def __init__(self, text):
        self._text, self._state, self.list = text, UNCHECKED, None

    def text(self):
        return self._text

    def setData(self, role, value):
        self.data = value

    def setFlags(self, flags):
        pass

    def setToolTip(self, text):
        pass

    def checkState(self):
        return self._state

    def setCheckState(self, state):
        if state != self._state:
            self._state = state
            if self.list:
                self.list.emit("itemChanged(QListWidgetItem*)", self)


class ListWidget(Widget):
    def __init__(self):
        super().__init__()
        self.items = []

    @property
    def count(self):
        return len(self.items)

    def item(self, index):
        return self.items[index]

    def addItem(self, item):
        item.list = self
        self.items.append(item)

    def clear(self):
        self.items = []

    def states(self):
        return {item.text(): item.checkState() == CHECKED for item in self.items}


class Table(Widget):
    def __init__(self):
        super().__init__()
        self.rowCount, self.cells, self._header = 0, {}, types.SimpleNamespace(setStretchLastSection=lambda on: None)

    def setColumnCount(self, count):
        self.columns = count

    def setHorizontalHeaderLabels(self, labels):
        assert len(labels) == self.columns

    def horizontalHeader(self):
        return self._header

    def setRowCount(self, count):
        self.rowCount = count
        self.cells = {place: item for place, item in self.cells.items() if place[0] < count}

    def setItem(self, row, column, item):
        assert row < self.rowCount and column < self.columns
        self.cells[row, column] = item.text()


class ProgressBar(Widget):
    def setRange(self, low, high):
        self.range, self.values = (low, high), []

    def setValue(self, value):
        assert isinstance(value, int) and self.range[0] <= value <= self.range[1]
        self.values.append(value)


class Log(Widget):
    def clear(self):
        self.text = ""

    def appendPlainText(self, text):
        self.text += text + "\n"


class Shows(Widget):
    node = None

    def setSegmentationNode(self, node):
        self.node = node

    setMRMLTableNode = setSegmentationNode


class Volumes(Widget):
    ticked = ()

    def checkedNodes(self):
        return self.ticked

    def tick(self, *nodes):
        self.ticked = nodes
        self.emit("checkedNodesChanged()")


CLASSES = {"QComboBox": ComboBox, "QListWidget": ListWidget, "QTableWidget": Table, "QProgressBar": ProgressBar, "QPlainTextEdit": Log,
           "qMRMLSegmentationShow3DButton": Shows, "qMRMLTableView": Shows, "qMRMLCheckableNodeComboBox": Volumes}


def load_ui(path):
    ui = types.SimpleNamespace(**{each.get("name"): CLASSES.get(each.get("class"), Widget)()
                                  for each in ElementTree.parse(path).getroot().iter("widget")})
    return types.SimpleNamespace(ui=ui, setMRMLScene=lambda scene: None)


class Observations:
    """VTKObservationMixin, for the scene and for parameter nodes."""

    def __init__(self):
        self.observed = []

    def addObserver(self, caller, event, method):
        self.observed.append((caller, event, method, caller.AddObserver(event, method)))

    def removeObserver(self, caller, event, method):
        for each in [each for each in self.observed if each[:3] == (caller, event, method)]:
            each[0].RemoveObserver(each[3])
            self.observed.remove(each)

    def removeObservers(self):
        for caller, _, _, tag in self.observed:
            caller.RemoveObserver(tag)
        self.observed = []


def parameter_node_wrapper(wrapped):
    """A parameter node whose values are kept for its name and that tells its observers of every change."""
    class Wrapper(wrapped):
        kept = {}
        observers = {}

        def __init__(self, node):
            vars(self).update({"inputVolume": None, **self.kept})

        def __setattr__(self, name, value):
            assert name in self.__annotations__, name
            if getattr(self, name) != value:
                vars(self)[name] = self.kept[name] = value
                for method in list(self.observers.values()):
                    method(self, "ModifiedEvent")

        def AddObserver(self, event, method):
            tag = object()
            self.observers[tag] = method
            return tag

        def RemoveObserver(self, tag):
            self.observers.pop(tag, None)

        def connectGui(self, ui):
            return 1

        def disconnectGui(self, tag):
            pass

    Wrapper.__annotations__ = wrapped.__annotations__
    return Wrapper
