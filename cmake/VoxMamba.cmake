# What every target of the project shares.
include_guard(GLOBAL)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

option(VOXMAMBA_SANITIZE "Address and undefined-behaviour sanitizers" OFF)

add_library(vx_flags INTERFACE)
target_include_directories(vx_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(vx_flags INTERFACE
  VX_VERSION="${PROJECT_VERSION}" $<$<BOOL:${VOXMAMBA_ITK}>:VX_HAVE_ITK> $<$<BOOL:${VOXMAMBA_DICOM}>:VX_HAVE_DICOM>
  $<$<BOOL:${VOXMAMBA_ONEDNN}>:VX_HAVE_ONEDNN> $<$<BOOL:${VOXMAMBA_NIFTI}>:VX_HAVE_NIFTI>)
# -ffp-contract=off: the same bits whatever the compiler fuses; kernels ask for FMA by name.
target_compile_options(vx_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wconversion;-Wshadow;-Wvla;-Wstrict-prototypes;-fno-math-errno;-ffp-contract=off>
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra>
  $<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<BOOL:${VOXMAMBA_WERROR}>>:-Werror>)
if(VOXMAMBA_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=address,undefined>
                      $<$<COMPILE_LANGUAGE:C,CXX>:-fno-omit-frame-pointer>
                      $<$<COMPILE_LANGUAGE:C,CXX>:-fno-sanitize-recover=undefined>)
  add_link_options(-fsanitize=address,undefined)
endif()

# vx_library(name SOURCES a.c ... [LINKS vx_base ...]): one folder of src as a static library "vx_<name>".
function(vx_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(vx_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(vx_${name} PUBLIC vx_flags ${ARG_LINKS})
endfunction()

# Sets ${out} to ON when the CUDA module is to be built; VOXMAMBA_CUDA=ON without a toolkit is an error.
function(vx_cuda_wanted out)
  set(wanted OFF)
  if(NOT VOXMAMBA_CUDA STREQUAL "OFF" AND EXISTS "${PROJECT_SOURCE_DIR}/cuda/CMakeLists.txt")
    include(CheckLanguage)
    if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
      set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc CACHE FILEPATH "CUDA compiler")
    endif()
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      set(wanted ON)
    elseif(VOXMAMBA_CUDA STREQUAL "ON")
      message(FATAL_ERROR "VOXMAMBA_CUDA is ON, but no CUDA compiler was found")
    endif()
  endif()
  set(${out} ${wanted} PARENT_SCOPE)
endfunction()
