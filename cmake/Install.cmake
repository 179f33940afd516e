# What an installation holds beside the program and the library (those are installed where they are
# built), and the Debian package that CPack makes of it. scripts/package.sh runs both.
include(CMakePackageConfigHelpers)

# ---- For programs that use the library -----------------------------------------------------------
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/voxmamba)
install(EXPORT voxmamba-targets NAMESPACE voxmamba:: DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(cmake/voxmamba-config.cmake.in
                              ${CMAKE_CURRENT_BINARY_DIR}/voxmamba-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/voxmamba-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/voxmamba-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/voxmamba-config-version.cmake
        DESTINATION ${package_dir} COMPONENT development)

# The prefix is found from the .pc file itself, so that an installation can be moved; with folders
# given as absolute paths it cannot, and the .pc file says those paths.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
  set(pc_libdir "${CMAKE_INSTALL_FULL_LIBDIR}")
  set(pc_includedir "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()
  file(RELATIVE_PATH pc_to_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" /)
  string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
  set(pc_prefix "\${pcfiledir}/${pc_to_prefix}")
  set(pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
  set(pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file(cmake/voxmamba.pc.in ${CMAKE_CURRENT_BINARY_DIR}/voxmamba.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/voxmamba.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)

# ---- Models, manual, completion, documents -------------------------------------------------------
# Folders are read at install time: a file added later needs no new configure step.
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/voxmamba/models
        FILES_MATCHING PATTERN "*.safetensors" PATTERN "*.md" PATTERN "*.schema.json"
        PATTERN "reference" EXCLUDE)
install(FILES docs/voxmamba.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES docs/completion/voxmamba.bash RENAME voxmamba
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES LICENSE packaging/copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} USE_SOURCE_PERMISSIONS
        FILES_MATCHING PATTERN "*.md" PATTERN "*.schema.json" PATTERN "*.c" PATTERN "*.png" PATTERN "*.sh"
        PATTERN "*.service" PATTERN "*.path"
        PATTERN "completion" EXCLUDE)

# ---- The Debian package --------------------------------------------------------------------------
set(VOXMAMBA_PACKAGE_CONTACT "VoxMamba maintainers <maintainers@voxmamba.invalid>" CACHE STRING
    "Who answers for the Debian package")
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME voxmamba)
set(CPACK_PACKAGE_VENDOR VoxMamba)
set(CPACK_PACKAGE_CONTACT "${VOXMAMBA_PACKAGE_CONTACT}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_DESCRIPTION
"A program and a C library that segment CT and MR volumes (NIfTI, NRRD, MetaImage, DICOM)
with U-Nets made of 3D-scan Mamba blocks. Runs on the CPU, without Python or a network.
Research software: not a medical device.")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

# The CUDA module is a package of its own, voxmamba-cuda, so that the other stays free of CUDA. cuDNN and
# cuBLASLt come from NVIDIA in packages of several names, or without any: they are not dependencies.
if(TARGET voxmamba_cuda)
  set(CPACK_DEB_COMPONENT_INSTALL ON)
  set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
  set(CPACK_COMPONENT_UNSPECIFIED_GROUP base)
  set(CPACK_COMPONENT_DEVELOPMENT_GROUP base)
  set(CPACK_COMPONENT_CUDA_GROUP cuda)
  set(CPACK_DEBIAN_BASE_PACKAGE_NAME voxmamba)
  set(CPACK_DEBIAN_CUDA_PACKAGE_NAME voxmamba-cuda)
  set(CPACK_DEBIAN_CUDA_PACKAGE_SECTION contrib/science)
  set(CPACK_DEBIAN_CUDA_PACKAGE_SHLIBDEPS OFF)
  set(CPACK_DEBIAN_CUDA_PACKAGE_DEPENDS
      "voxmamba (= ${PROJECT_VERSION}), libc6 (>= 2.34), libgcc-s1, libstdc++6")
  set(CPACK_COMPONENT_CUDA_DESCRIPTION
"The module that voxmamba loads for --device cuda, and by itself where it can be used.
Needs an NVIDIA GPU of compute capability 7.5 or newer with its driver, and NVIDIA's libraries
libcudnn.so.9 and libcublasLt.so.13, which are not in Debian.")
endif()
include(CPack)
