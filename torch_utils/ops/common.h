// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// What the native operations share: types of arithmetic, and tests of memory layouts.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <cstdint>

#if defined(__CUDACC__)
#define GGDR_HD __host__ __device__ __forceinline__
#else
#define GGDR_HD inline
#endif

namespace ggdr {

// The type in which values stored as T are added and multiplied.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
using acc_t = typename Accumulate<T>::type;

inline at::ScalarType acc_scalar_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

GGDR_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether element i of both tensors' memory is the same element of their shape; both must be dense.
inline bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

// `t`, or its copy in `room` if it is laid out differently.
inline at::Tensor in_layout_of(const at::Tensor& t, const at::Tensor& room) {
  if (t.is_non_overlapping_and_dense() && same_layout(t, room)) return t;
  return room.copy_(t);
}

}  // namespace ggdr
