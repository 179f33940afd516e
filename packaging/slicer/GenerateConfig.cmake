# Part of SlicerConfig.cmake of this folder. Slicer writes a file here by which other extensions find this one; none needs it.
