// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// What CUDA sources need of CUDA, on a CPU: the kernels' words, and operations that take the place of the CPU's while
// they are emulated.

#pragma once

#include "guarded_memory.h"
#include "runtime.h"

#include <c10/core/Device.h>
#include <torch/library.h>

#include <memory>

namespace c10::cuda {

struct CUDAGuard {
  explicit CUDAGuard(c10::Device) {}
  emulation::Guard guard;
};
inline int getCurrentCUDAStream() { return 0; }

}  // namespace c10::cuda

#define C10_CUDA_KERNEL_LAUNCH_CHECK() (void)0

#undef TORCH_LIBRARY_IMPL
#define TORCH_LIBRARY_IMPL(name, key, m)                                                                        \
  static void register_operations(torch::Library&);                                                             \
  static const emulation::Operations operations([](bool on) {                                                   \
    static std::unique_ptr<torch::Library> library;                                                             \
    library.reset();                                                                                            \
    if (!on) return;                                                                                            \
    library = std::make_unique<torch::Library>(torch::Library::IMPL, #name, c10::DispatchKey::CPU, __FILE__, __LINE__); \
    register_operations(*library);                                                                              \
  });                                                                                                           \
  static void register_operations(torch::Library& m)

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define gridDim emulation::grid_dim
#define blockDim emulation::block_dim
#define blockIdx emulation::block_idx
#define threadIdx emulation::thread_idx
#define __syncthreads() emulation::barrier()
