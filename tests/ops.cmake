# Operations: what their tests share is a module of its own.
add_library(qorus_test_ops STATIC EXCLUDE_FROM_ALL)
set_target_properties(qorus_test_ops PROPERTIES CXX_SCAN_FOR_MODULES ON)
target_sources(qorus_test_ops PUBLIC FILE_SET CXX_MODULES FILES op_testing.cppm PRIVATE op_testing.cpp op_refusals.cpp)
target_include_directories(qorus_test_ops PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(qorus_test_ops PUBLIC qorus_ops qorus_allocation_counter PRIVATE qorus_build)
function(qorus_ops_test name)
  qorus_test(${name} SOURCES ${ARGN} LINK qorus_test_ops)
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:-O1>)  # references are long sums
endfunction()
qorus_ops_test(ops_test ops_elementwise_test.cpp ops_reduce_test.cpp ops_product_test.cpp ops_attention_test.cpp ops_recurrent_test.cpp ops_experts_test.cpp ops_shape_test.cpp
  ops_cast_test.cpp ops_errors_test.cpp ops_refusals_test.cpp ops_seldom_test.cpp)
qorus_ops_test(conv_test ops_conv_test.cpp)
qorus_ops_test(tape_test tape_test.cpp workspace_test.cpp rematerialize_test.cpp)

# ONNX' own cases.
add_library(qorus_test_onnx STATIC EXCLUDE_FROM_ALL)
set_target_properties(qorus_test_onnx PROPERTIES CXX_SCAN_FOR_MODULES ON)
target_sources(qorus_test_onnx PUBLIC FILE_SET CXX_MODULES FILES onnx_call.cppm
  PRIVATE onnx_case.cpp onnx_elementwise.cpp onnx_reductions.cpp onnx_structure.cpp onnx_blocks.cpp onnx_recurrent.cpp
    onnx_pictures.cpp onnx_algebra.cpp)
target_include_directories(qorus_test_onnx PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(qorus_test_onnx PUBLIC qorus_ops PRIVATE qorus_build)
qorus_test(onnx_cases_test SOURCES onnx_cases_test.cpp LINK qorus_test_onnx)
