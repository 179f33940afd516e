# Part of SlicerConfig.cmake of this folder: what include(${Slicer_USE_FILE}) gives.
set(EXTENSION_NAME "${PROJECT_NAME}")
foreach(kind CLIMODULES QTSCRIPTEDMODULES)
  set(Slicer_INSTALL_${kind}_LIB_DIR "${Slicer_INSTALL_ROOT}${Slicer_${kind}_LIB_DIR}")
endforeach()
set(Slicer_INSTALL_CLIMODULES_BIN_DIR "${Slicer_INSTALL_ROOT}${Slicer_CLIMODULES_BIN_DIR}")
set(Slicer_INSTALL_THIRDPARTY_LIB_DIR "${Slicer_INSTALL_ROOT}${Slicer_LIB_DIR}")
set(BUILD_TESTING OFF)

# slicerMacroBuildScriptedModule(NAME name SCRIPTS files RESOURCES files [WITH_GENERIC_TESTS] [WITH_SUBDIR] [VERBOSE]): every
# file goes, under its relative path, into the folder of scripted modules of the build and of the installation. As in Slicer,
# other keywords and files that are not there are errors.
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(module "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(module_UNPARSED_ARGUMENTS OR NOT module_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: ${ARGN}")
  endif()
  foreach(file ${module_SCRIPTS} ${module_RESOURCES})
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "slicerMacroBuildScriptedModule: there is no ${file}")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/${folder}" COMPONENT RuntimeLibraries)
    configure_file("${file}" "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${file}" COPYONLY)
  endforeach()
endmacro()
