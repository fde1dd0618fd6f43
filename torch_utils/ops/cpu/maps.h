// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Checks and types of the feature maps that the vectorised CPU kernels take: [N, C, H, W], float32 or bfloat16.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

namespace ggdr {

inline bool is_half(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16; }

inline at::Tensor channels_last(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

inline void check_maps(const at::Tensor& x, const char* operation, const char* name) {
  TORCH_CHECK(x.dim() == 4 && (x.scalar_type() == at::kFloat || is_half(x)), operation, ": ", name,
              " must be [N, C, H, W] float32 or bfloat16, got ", x.sizes(), " ", x.scalar_type());
}

// Calls run with a value of the maps' type.
template <class Run>
void with_type(const at::Tensor& x, const Run& run) {
  is_half(x) ? run(c10::BFloat16()) : run(float());
}

}  // namespace ggdr
