# Lays what scripts/package.sh has packed over lib/Slicer-X.Y of the extension, so that every way from one file to another is
# the one that it had in the bundle:
#   cli-modules/   Slicer's own folder for command-line modules: VoxMambaSegment and its XML
#   bin/, lib/voxmamba/, share/voxmamba/, share/doc/voxmamba/    the program, its libraries, the models, manual and licences
# Headers and the library for C programs stay out. The build tree gets the same, so that Slicer can be started from it.

set(VOXMAMBA_BUNDLE "" CACHE STRING
    "Tarball or folder that scripts/package.sh made, then optionally that of scripts/package-cuda.sh (a list)")

if(NOT VOXMAMBA_BUNDLE)
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    message(FATAL_ERROR "VOXMAMBA_BUNDLE is not set: run scripts/package.sh in the project's root, then configure with "
                        "-DVOXMAMBA_BUNDLE=build/dist/voxmamba-VERSION-linux-x86_64.tar.gz (an absolute path)")
  else()
    message(FATAL_ERROR "There is no program of VoxMamba for ${CMAKE_SYSTEM_NAME} yet (Linux on x86-64 only). Who has built one gives "
                        "-DVOXMAMBA_BUNDLE=FOLDER with bin/voxmamba${CMAKE_EXECUTABLE_SUFFIX}, share/voxmamba/models/, "
                        "lib/voxmamba/ if it has libraries of its own, cli-modules/VoxMambaSegment${CMAKE_EXECUTABLE_SUFFIX} and "
                        "cli-modules/VoxMambaSegment.xml")
  endif()
endif()

# voxmamba_bundle_folder(GIVEN NUMBER OUT): the folder GIVEN, or the one in the tarball GIVEN, which is unpacked into the build tree.
function(voxmamba_bundle_folder given number out)
  if(IS_DIRECTORY "${given}")
    set(${out} "${given}" PARENT_SCOPE)
    return()
  endif()
  if(NOT EXISTS "${given}")
    message(FATAL_ERROR "VOXMAMBA_BUNDLE: ${given} is not there (give absolute paths)")
  endif()
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/bundle-${number}")
  file(REMOVE_RECURSE "${folder}")
  file(ARCHIVE_EXTRACT INPUT "${given}" DESTINATION "${folder}")
  file(GLOB top "${folder}/*")
  list(LENGTH top count)
  if(NOT count EQUAL 1)
    message(FATAL_ERROR "VOXMAMBA_BUNDLE: ${given} holds ${count} folders, not one: scripts/package.sh did not make it")
  endif()
  set(${out} "${top}" PARENT_SCOPE)
endfunction()

set(number 0)
foreach(given IN LISTS VOXMAMBA_BUNDLE)
  voxmamba_bundle_folder("${given}" ${number} folder)
  if(number EQUAL 0)
    foreach(file bin/voxmamba${CMAKE_EXECUTABLE_SUFFIX} cli-modules/VoxMambaSegment${CMAKE_EXECUTABLE_SUFFIX}
                 cli-modules/VoxMambaSegment.xml share/voxmamba/models)
      if(NOT EXISTS "${folder}/${file}")
        message(FATAL_ERROR "VOXMAMBA_BUNDLE: ${given} has no ${file}")
      endif()
    endforeach()
    # UseSlicer.cmake sets these for extensions; on macOS they lead into the bundle.
    install(DIRECTORY "${folder}/cli-modules/" DESTINATION ${Slicer_INSTALL_CLIMODULES_BIN_DIR} USE_SOURCE_PERMISSIONS
            COMPONENT RuntimeLibraries)
    file(COPY "${folder}/cli-modules/" DESTINATION "${CMAKE_BINARY_DIR}/${Slicer_CLIMODULES_BIN_DIR}")
  endif()
  foreach(part bin lib/voxmamba share/voxmamba share/doc/voxmamba)
    if(IS_DIRECTORY "${folder}/${part}")
      install(DIRECTORY "${folder}/${part}/" DESTINATION ${Slicer_INSTALL_THIRDPARTY_LIB_DIR}/${part} USE_SOURCE_PERMISSIONS
              COMPONENT RuntimeLibraries)
      file(COPY "${folder}/${part}/" DESTINATION "${CMAKE_BINARY_DIR}/${Slicer_LIB_DIR}/${part}")
    endif()
  endforeach()
  math(EXPR number "${number} + 1")
endforeach()
