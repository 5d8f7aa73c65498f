# The package: what find_package(Qorus CONFIG) and pkg-config read. The targets themselves are installed where they are made.
include(CMakePackageConfigHelpers)

set(QORUS_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Qorus)
get_property(QORUS_MODULES GLOBAL PROPERTY QORUS_MODULES)

install(TARGETS qorus_abi EXPORT QorusTargets)
install(EXPORT QorusTargets NAMESPACE qorus:: DESTINATION ${QORUS_CMAKE_DIR} CXX_MODULES_DIRECTORY modules)

configure_package_config_file(cmake/QorusConfig.cmake.in ${PROJECT_BINARY_DIR}/QorusConfig.cmake INSTALL_DESTINATION ${QORUS_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/QorusConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/QorusConfig.cmake ${PROJECT_BINARY_DIR}/QorusConfigVersion.cmake DESTINATION ${QORUS_CMAKE_DIR})

# pkg-config is for the archives; as a group, so that their order does not matter to the linker.
list(TRANSFORM QORUS_MODULES PREPEND -lqorus_ OUTPUT_VARIABLE QORUS_PC_LIBS)
list(JOIN QORUS_PC_LIBS " " QORUS_PC_LIBS)
set(QORUS_PC_LIBS "-Wl,--start-group ${QORUS_PC_LIBS} -lqorus_kernels -Wl,--end-group")
file(RELATIVE_PATH QORUS_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /) # so that the package may be moved
string(REGEX REPLACE "/$" "" QORUS_PC_PREFIX "${QORUS_PC_PREFIX}")
configure_file(cmake/qorus.pc.in ${PROJECT_BINARY_DIR}/qorus.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/qorus.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
