// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// Index arithmetic and argument checks of upfirdn2d, for the CPU and for CUDA.
//
// Along one axis, with `up - 1` zeros behind each of `in` samples and `pad` zeros in front:
//
//   y[o] = sum over k of tap[k] u[o down + k - pad],  u[i up] = x[i], all other u zero.
//
// Only every up-th tap meets a sample: taps phase, phase + up, phase + 2 up, ... meet samples first, first + 1, ...

#pragma once

#include "common.h"

#include <ATen/ops/empty.h>

#include <cstdint>

namespace ggdr {

struct Axis {
  int64_t in, out;
  int up, down;
  int64_t pad;  // in front; negative crops
  int taps;

  // Position of output `o`'s first tap in u.
  GGDR_HD int64_t start(int64_t o) const { return o * down - pad; }

  // First sample that output `o` meets; may lie before the first or behind the last sample there is.
  GGDR_HD int64_t first(int64_t o) const {
    const int64_t q = start(o);
    return q >= 0 ? (q + up - 1) / up : -(-q / up);
  }

  // The tap that meets it.
  GGDR_HD int phase(int64_t o) const { return static_cast<int>(first(o) * up - start(o)); }

  // How many taps of a phase there are.
  GGDR_HD int count(int phase) const { return phase < taps ? (taps - phase + up - 1) / up : 0; }
};

// The checked arguments of a call.
struct Upfirdn2dCall {
  at::Tensor x;    // [N, C, H, W], a row's elements next to each other: W of them, or W * C where channels_last
  at::Tensor f;    // [fh, fw], or [n] along both axes
  at::Tensor out;  // [N, C, OH, OW], contiguous or channels_last
  bool channels_last;
  bool flip;  // false: tap[k] = f[last - k], convolution
  double gain;
  Axis row, column;  // along H, along W
};

inline Axis check_axis(const char* name, int64_t in, int64_t up, int64_t down, int64_t pad0, int64_t pad1,
                       int64_t taps) {
  TORCH_CHECK_VALUE(1 <= up && up <= 1024 && 1 <= down && down <= 1024,
                    "upfirdn2d: up and down must be in [1, 1024], got ", up, " and ", down, " along ", name);
  const int64_t padded = in * up + pad0 + pad1;
  TORCH_CHECK_VALUE(padded >= taps, "upfirdn2d: x padded to ", padded, " along ", name, " is smaller than f (", taps,
                    " taps)");
  return {in, (padded - taps) / down + 1, static_cast<int>(up), static_cast<int>(down), pad0, static_cast<int>(taps)};
}

inline Upfirdn2dCall check_upfirdn2d(const at::Tensor& x, const at::Tensor& f, at::IntArrayRef up, at::IntArrayRef down,
                                     at::IntArrayRef padding, bool flip, double gain) {
  TORCH_CHECK_VALUE(x.dim() == 4, "upfirdn2d: x must be [N, C, H, W], got ", x.sizes());
  TORCH_CHECK_TYPE(at::isFloatingType(x.scalar_type()) && at::isFloatingType(f.scalar_type()),
                   "upfirdn2d: x and f must be of floating types, got ", x.scalar_type(), " and ", f.scalar_type());
  TORCH_CHECK_VALUE((f.dim() == 1 || f.dim() == 2) && 0 < f.numel() && f.numel() <= 1 << 20,
                    "upfirdn2d: f must be [fh, fw] or [n], not empty, got ", f.sizes());
  TORCH_CHECK_VALUE(f.device() == x.device(), "upfirdn2d: f is on ", f.device(), ", x on ", x.device());
  TORCH_CHECK_VALUE(up.size() == 2 && down.size() == 2 && padding.size() == 4,
                    "upfirdn2d: expected up (x, y), down (x, y) and padding (x0, x1, y0, y1), got ", up, ", ", down,
                    " and ", padding);
  Upfirdn2dCall call{x, f, {}, false, flip, gain, {}, {}};
  call.column = check_axis("x", x.size(3), up[0], down[0], padding[0], padding[1], f.size(-1));
  call.row = check_axis("y", x.size(2), up[1], down[1], padding[2], padding[3], f.size(0));
  const at::MemoryFormat format = x.suggest_memory_format();
  call.channels_last = format == at::MemoryFormat::ChannelsLast;
  const int64_t pixel = call.channels_last ? x.size(1) : 1;
  const bool pixels_dense = !call.channels_last || x.size(1) == 1 || x.stride(1) == 1;
  const bool rows_dense = x.size(3) == 1 || x.stride(3) == pixel;
  if (!pixels_dense || !rows_dense) call.x = x.contiguous(format);
  call.out = at::empty({x.size(0), x.size(1), call.row.out, call.column.out}, x.options().memory_format(format));
  return call;
}

}  // namespace ggdr
