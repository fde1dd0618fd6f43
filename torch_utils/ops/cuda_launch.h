// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// What the CUDA kernels share: packs of 16 bytes, division of indices, and the size of a launch.

#pragma once

#include "common.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

namespace ggdr {

constexpr int kThreads = 256;  // of a block

// Values that a thread loads and stores at once.
template <class T>
constexpr int kPack = 16 / sizeof(T);

template <class T>
struct alignas(16) Pack {
  T values[kPack<T>];
};

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % alignof(Pack<float>) == 0; }

// a / b for a >= 0 and b > 0. 32 bits divide several times as fast as 64; `small` says that both fit.
__device__ __forceinline__ int64_t divide(int64_t a, int64_t b, bool small) {
  return small ? static_cast<uint32_t>(a) / static_cast<uint32_t>(b) : a / b;
}

inline bool is_small(int64_t a) { return a <= INT32_MAX; }

// Blocks of kThreads for a loop over `num` items in steps of all threads.
inline unsigned blocks_for(int64_t num) {
  return static_cast<unsigned>(std::clamp<int64_t>(ceil_div(num, kThreads), 1, 1 << 20));
}

__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t num_threads() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

}  // namespace ggdr
