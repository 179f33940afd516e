# Stands in for 3D Slicer where there is none: enough of what a Slicer build gives an extension (find_package(Slicer),
# Slicer_USE_FILE, slicerMacroBuildScriptedModule, the two files at the end) to lay gui-plugin/SlicerVoxMamba out as Slicer
# would, for scripts/package-slicer.sh and tests/slicer/extension. Facts of Slicer's interface, as of its versions 5.6 to 5.12;
# none of its code. It compiles nothing and checks no version of Qt.
#   -DSlicer_DIR=packaging/slicer -DSlicer_VERSION=5.8
if(NOT Slicer_VERSION MATCHES "^[0-9]+\\.[0-9]+$")
  message(FATAL_ERROR "Slicer_VERSION must be the first two numbers of a version, as 5.8")
endif()
set(Slicer_FOUND TRUE)
set(Slicer_USE_PYTHONQT ON)

# Where things are, in a build and in an installation.
set(Slicer_LIB_DIR "lib/Slicer-${Slicer_VERSION}")
set(Slicer_SHARE_DIR "share/Slicer-${Slicer_VERSION}")
set(Slicer_CLIMODULES_BIN_DIR "${Slicer_LIB_DIR}/cli-modules")
set(Slicer_CLIMODULES_LIB_DIR "${Slicer_LIB_DIR}/cli-modules")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_LIB_DIR}/qt-scripted-modules")
set(Slicer_INSTALL_ROOT "./")

set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/GenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Description.cmake")
