# How Qorus declares its targets: one function for a module's library, one for a program that imports modules.

# What only a debugger or another linker would read.
set(QORUS_SMALL -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-addrsig -fno-ident)

# A module's static library, qorus::<name>. INTERFACES are .cppm files (installed with the package), PARTS are implementation
# partitions (`module qorus.x:y_impl;`), SOURCES are implementation units (`module qorus.x;`). DEPS are public, PRIVATE are not.
function(qorus_module name)
  cmake_parse_arguments(arg "" "" "INTERFACES;PARTS;SOURCES;DEPS;PRIVATE" ${ARGN})
  add_library(qorus_${name} STATIC)
  add_library(qorus::${name} ALIAS qorus_${name})
  set_target_properties(qorus_${name} PROPERTIES EXPORT_NAME ${name} CXX_SCAN_FOR_MODULES ON)
  target_sources(qorus_${name}
    PUBLIC FILE_SET CXX_MODULES BASE_DIRS ${PROJECT_SOURCE_DIR}/modules FILES ${arg_INTERFACES}
    PRIVATE ${arg_SOURCES})
  if(arg_PARTS)
    target_sources(qorus_${name} PRIVATE FILE_SET parts TYPE CXX_MODULES
      BASE_DIRS ${PROJECT_SOURCE_DIR}/modules FILES ${arg_PARTS})
  endif()
  # The loops that must be fast are kernels, and the tokenizers' scanners; all else is better small. One section a file, for
  # files are small enough to be the linker's unit, and sections of their own make each function a tenth larger, unwind tables as much.
  # But operations have their backward rules beside them, which a program that only infers must not link.
  target_compile_options(qorus_${name} PRIVATE "$<$<CONFIG:Release>:${QORUS_SMALL}>")
  if(name STREQUAL ops)
    target_compile_options(qorus_${name} PRIVATE $<$<CONFIG:Release>:-ffunction-sections -fno-unique-section-names>)
  endif()
  if(NOT name STREQUAL text)
    target_compile_options(qorus_${name} PRIVATE $<$<CONFIG:Release>:-Os>)
  endif()
  if(NOT name STREQUAL std) # said for each, since CMake offers a package's modules to those that link them directly alone
    list(APPEND arg_DEPS qorus_std)
  endif()
  target_link_libraries(qorus_${name} PUBLIC qorus_abi ${arg_DEPS} PRIVATE $<BUILD_INTERFACE:qorus_build> ${arg_PRIVATE})
  set_property(GLOBAL APPEND PROPERTY QORUS_MODULES ${name})
  if(QORUS_INSTALL) # here, in the directory that creates the target: elsewhere CMake exports the source tree's paths
    install(TARGETS qorus_${name} EXPORT QorusTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
      FILE_SET CXX_MODULES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/qorus/modules)
  endif()
endfunction()

# A program of our own that imports modules (tests, benchmarks, examples, tools).
function(qorus_program name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES CXX_SCAN_FOR_MODULES ON)
  target_link_libraries(${name} PRIVATE qorus_build ${arg_LINK})
endfunction()
