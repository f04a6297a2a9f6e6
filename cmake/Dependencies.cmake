# Every outside library, found once, by the name the rest of the build uses.
# launch/install_dependencies installs what is missing on Debian 12 and Ubuntu 24.04.

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(ZLIB REQUIRED)
set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI REQUIRED COMPONENTS CXX)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)

# HDF5's C interface; a serial library is preferred where both kinds are installed, because the
# checkpoint writer works with either.
find_package(HDF5 REQUIRED COMPONENTS C)
add_library(convoy_hdf5 INTERFACE)
target_include_directories(convoy_hdf5 SYSTEM INTERFACE ${HDF5_INCLUDE_DIRS})
target_link_libraries(convoy_hdf5 INTERFACE ${HDF5_C_LIBRARIES})
if(HDF5_IS_PARALLEL)
  target_link_libraries(convoy_hdf5 INTERFACE MPI::MPI_CXX)
endif()

# CPU matmul library: oneDNN, else any CBLAS, else only the project's own kernel.
set(CONVOY_MATMUL_PROVIDER none)
if(CONVOY_MATMUL STREQUAL "auto" OR CONVOY_MATMUL STREQUAL "onednn")
  # Found by hand: the package's own CMake file asks for OpenCL, which the CPU does not need.
  find_path(DNNL_INCLUDE_DIR dnnl.h)
  find_library(DNNL_LIBRARY dnnl)
  find_package(OpenMP QUIET COMPONENTS CXX)  # oneDNN's threads, to keep them at one
  if(DNNL_INCLUDE_DIR AND DNNL_LIBRARY AND OpenMP_CXX_FOUND)
    set(CONVOY_MATMUL_PROVIDER onednn)
    set(CONVOY_MATMUL_TARGET ${DNNL_LIBRARY} OpenMP::OpenMP_CXX)
  endif()
endif()
if(CONVOY_MATMUL_PROVIDER STREQUAL "none" AND CONVOY_MATMUL MATCHES "^(auto|cblas)$")
  pkg_search_module(CBLAS QUIET IMPORTED_TARGET openblas cblas blas-netlib)
  if(CBLAS_FOUND)
    set(CONVOY_MATMUL_PROVIDER cblas)
    set(CONVOY_MATMUL_TARGET PkgConfig::CBLAS)
  endif()
endif()
if(NOT CONVOY_MATMUL STREQUAL "auto" AND NOT CONVOY_MATMUL STREQUAL CONVOY_MATMUL_PROVIDER)
  message(FATAL_ERROR "CONVOY_MATMUL=${CONVOY_MATMUL} was asked for but not found")
endif()
message(STATUS "CPU matmul library: ${CONVOY_MATMUL_PROVIDER}")

# CUDA: only a toolkit is needed to build, no GPU.
set(CONVOY_HAS_CUDA OFF)
if(NOT CONVOY_CUDA STREQUAL "off")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    list(TRANSFORM CONVOY_CUDA_ARCHITECTURES APPEND "-real" OUTPUT_VARIABLE _real)
    list(GET CONVOY_CUDA_ARCHITECTURES -1 _newest)
    set(CMAKE_CUDA_ARCHITECTURES ${_real} ${_newest}-virtual)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know it of CUDA 13
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CONVOY_HAS_CUDA ON)
  elseif(CONVOY_CUDA STREQUAL "on")
    message(FATAL_ERROR "CONVOY_CUDA=on, but no CUDA compiler was found (set CUDACXX)")
  endif()
endif()
message(STATUS "CUDA backend: ${CONVOY_HAS_CUDA}")

# cuDNN's flash attention, where cuDNN and its frontend (headers only, MIT; CONVOY_CUDNN_FRONTEND
# names the folder that holds cudnn_frontend.h) are there; else the project's own kernels alone.
if(CONVOY_HAS_CUDA)
  set(CONVOY_FLASH_PROVIDER none)
  find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR})
  find_path(CONVOY_CUDNN_FRONTEND cudnn_frontend.h)
  add_library(convoy_cuda_libraries INTERFACE)
  target_link_libraries(convoy_cuda_libraries INTERFACE CUDA::cudart CUDA::cublasLt)
  target_compile_options(convoy_cuda_libraries INTERFACE
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -lineinfo -Xcompiler=-Wall>)
  if(CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY AND CONVOY_CUDNN_FRONTEND)
    set(CONVOY_FLASH_PROVIDER cudnn)
    target_include_directories(convoy_cuda_libraries SYSTEM INTERFACE
      ${CUDNN_INCLUDE_DIR} ${CONVOY_CUDNN_FRONTEND})
    target_link_libraries(convoy_cuda_libraries INTERFACE ${CUDNN_LIBRARY} CUDA::nvrtc
      ${CMAKE_DL_LIBS})
  endif()
  message(STATUS "flash attention from a library: ${CONVOY_FLASH_PROVIDER}")
endif()

# NCCL: ranks on GPUs. Debian and Ubuntu: libnccl-dev of NVIDIA's repository.
set(CONVOY_NCCL absent)
if(CONVOY_HAS_CUDA)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    set(CONVOY_NCCL communicator)
  endif()
endif()
message(STATUS "NCCL: ${CONVOY_NCCL}")

# Ceres: the minima of scaling-law fits.
set(CONVOY_HAS_CERES OFF)
if(NOT CONVOY_CERES STREQUAL "off")
  find_package(Ceres QUIET)
  if(TARGET Ceres::ceres)
    set(CONVOY_HAS_CERES ON)
  elseif(CONVOY_CERES STREQUAL "on")
    message(FATAL_ERROR "CONVOY_CERES=on, but Ceres was not found (Debian: libceres-dev)")
  endif()
endif()
message(STATUS "Ceres, for fits: ${CONVOY_HAS_CERES}")

if(CONVOY_TESTS)
  find_package(GTest REQUIRED)
endif()
