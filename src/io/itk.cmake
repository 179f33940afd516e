# NRRD, MetaImage and DICOM: the C++ part of src/io. Included by CMakeLists.txt when VOXMAMBA_ITK is on.
# Sets VX_IO_ITK_SOURCES and VX_IO_ITK_LIBRARIES.
#
# Only the ITK modules named here are linked, and UseITK is not included: it would register every
# reader, ITK's NIfTI among them, whose symbols collide with libnifti2's.
set(vx_message_level "${CMAKE_MESSAGE_LOG_LEVEL}")
set(CMAKE_MESSAGE_LOG_LEVEL NOTICE) # Debian's GDCM lists each of its programs that is not installed
find_package(ITK 5.2 REQUIRED COMPONENTS ITKIONRRD ITKIOMeta)
set(CMAKE_MESSAGE_LOG_LEVEL "${vx_message_level}")
find_package(ZLIB REQUIRED)

set(VX_IO_ITK_SOURCES cxx_boundary.cpp itk_header.cpp itk_nrrd_header.cpp itk_meta_header.cpp itk_reader.cpp
    stream_length.cpp nrrd_meta_writer.cpp)
add_library(vx_itk_modules INTERFACE)
target_include_directories(vx_itk_modules SYSTEM INTERFACE ${ITK_INCLUDE_DIRS})
target_link_libraries(vx_itk_modules INTERFACE ITKIONRRD ITKIOMeta ITKIOImageBase ITKCommon ZLIB::ZLIB)
set(VX_IO_ITK_LIBRARIES vx_itk_modules)

if(VOXMAMBA_DICOM)
  # DCMTK parses and checks; GDCM, the decoder inside ITK, is only asked for compressed pixels.
  find_path(VX_DCMTK_INCLUDE dcmtk/dcmdata/dctk.h REQUIRED)
  find_path(VX_GDCM_INCLUDE gdcmImage.h PATH_SUFFIXES gdcm-3.0 REQUIRED)
  set(vx_dicom_libraries)
  foreach(name dcmdata oflog ofstd gdcmMSFF gdcmDSED gdcmDICT gdcmCommon)
    find_library(VX_LIB_${name} ${name} REQUIRED)
    list(APPEND vx_dicom_libraries ${VX_LIB_${name}})
  endforeach()
  add_library(vx_dicom_modules INTERFACE)
  target_include_directories(vx_dicom_modules SYSTEM INTERFACE ${VX_DCMTK_INCLUDE} ${VX_GDCM_INCLUDE})
  target_link_libraries(vx_dicom_modules INTERFACE ${vx_dicom_libraries})
  list(APPEND VX_IO_ITK_SOURCES dicom_wire.cpp dicom_worker.cpp dicom_scan.cpp dicom_series.cpp dicom_parts.cpp
       dicom_straighten.cpp dicom_values.cpp dicom_reader.cpp dicom_seg_plan.cpp
       dicom_seg_writer.cpp)
  file(RELATIVE_PATH bindir_to_libdir "${CMAKE_INSTALL_FULL_BINDIR}" "${CMAKE_INSTALL_FULL_LIBDIR}")
  set_source_files_properties(dicom_worker.cpp PROPERTIES
    COMPILE_DEFINITIONS "VX_BINDIR_TO_LIBDIR=\"${bindir_to_libdir}\"")

  # The process that DICOM is parsed and decoded in. Alone it is linked with DCMTK and GDCM.
  add_executable(voxmamba-dicom dicom_helper.cpp dicom_parse.cpp dicom_attributes.cpp dicom_geometry.cpp
                 dicom_pixels.cpp dicom_stream.cpp dicom_seg_header.cpp dicom_library.cpp dicom_wire.cpp stream_length.cpp cxx_boundary.cpp)
  target_link_libraries(voxmamba-dicom PRIVATE vx_dicom_modules ZLIB::ZLIB vx_volume vx_base)
  # build/.../lib/voxmamba lies to the program in build/.../cli as an installed one to its program.
  set_target_properties(voxmamba-dicom PROPERTIES SKIP_BUILD_RPATH ON INSTALL_RPATH ""
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/voxmamba)
  install(TARGETS voxmamba-dicom RUNTIME DESTINATION ${CMAKE_INSTALL_LIBDIR}/voxmamba)
else()
  list(APPEND VX_IO_ITK_SOURCES dicom_absent.cpp)
endif()
