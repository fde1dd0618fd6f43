// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// A kernel that reverses its block's values in shared memory, and what can be wrong with one.

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>
#include <unistd.h>

#include <algorithm>
#include <string>

namespace {

constexpr int kThreads = 64;

struct alignas(16) Pack {
  float values[4];
};

__global__ void wrong_kernel(const float* x, float* out, int64_t numel, std::string fault) {
  __shared__ float values[kThreads + 1];
  const int64_t first = int64_t(blockIdx.x) * blockDim.x;
  const int t = threadIdx.x;
  const bool is_first = blockIdx.x == 0 && t == 0;
  const bool small = numel <= INT32_MAX;
  values[t] = first + t < numel ? x[first + t] : 0.0f;
  if (fault != "no barrier" && !(fault == "uneven barrier" && t == 3)) __syncthreads();
  int from = kThreads - 1 - t;
  if (fault == "unwritten shared memory") ++from;
  if (first + t < numel) out[first + t] = values[from];
  if (fault == "another result beyond 32 bits" && !small) out[0] = -1.0f;
  if (!is_first) return;
  volatile float read = 0;
  if (fault == "read behind") read = x[numel];
  if (fault == "read before") read = *(x - sysconf(_SC_PAGESIZE) / sizeof(float));
  if (fault == "write behind") out[numel + 4] = 1.0f;
  if (fault == "write just behind") out[numel] = 1.0f;
  if (fault == "write before") out[-1] = 1.0f;
  if (fault == "shared memory behind") read = *(values + kThreads + 8);
  if (fault == "index of an array") read = values[kThreads + 1 + int(numel)];
  if (fault == "misaligned") read = reinterpret_cast<const Pack*>(x + 1)->values[0];
  (void)read;
}

at::Tensor reverse(const at::Tensor& x, c10::string_view fault) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor out = at::empty_like(x);
  const int64_t numel = x.numel(), needed = (numel + kThreads - 1) / kThreads;
  unsigned blocks = std::min<int64_t>(needed, 1 << 20), threads = kThreads;
  if (fault == "grid beyond the limit") blocks = needed;
  if (fault == "no block") blocks = 0;
  if (fault == "too many threads") threads = 1025;
  wrong_kernel<<<blocks, threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      x.const_data_ptr<float>(), out.mutable_data_ptr<float>(), numel, std::string(fault));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr_emulation, CUDA, m) { m.impl("reverse", &reverse); }
