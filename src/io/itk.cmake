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
    itk_writer.cpp)
add_library(vx_itk_modules INTERFACE)
target_include_directories(vx_itk_modules SYSTEM INTERFACE ${ITK_INCLUDE_DIRS})
target_link_libraries(vx_itk_modules INTERFACE ITKIONRRD ITKIOMeta ITKIOImageBase ITKCommon ZLIB::ZLIB)
set(VX_IO_ITK_LIBRARIES vx_itk_modules)

list(APPEND VX_IO_ITK_SOURCES dicom_absent.cpp)
