// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// Argument checks of demodulation, and its formulas. For images n, channels i, filters o and taps k:
//
//   demodulation:         d[n, o] = rsqrt(sum of (s'[n, i] w'[o, i, k])^2 over i and k, + 1e-8)
//
// of s' = m s and w' = c w. If `normalize`, m[n] = 1 / max |s[n, i]| and c[o] = 1 / |w[o]|, else both are 1; they are
// constants to the derivatives. With q[o, i] = sum of w'^2 over k, and t[n, o] = -gd d^3 / 2 for a gradient gd:
//
//   styles_grad:          gs = m (gs' + 2 s' (sum of t q over o))
//   weight_grad:          gw = 2 c w' (sum of t s'^2 over n)
//
// and for a gradient of gs, of which h is m times, with e[n, o] = sum of 2 h s' q over i:
//
//   styles_grad_backward: h for gs', -d^3 e / 2 for gd, -3 gd d^2 e / 2 for d, 2 h (sum of t q over o) for s', and
//                         2 c w' (sum of 2 t h s' over n) for w

#pragma once

#include "common.h"

namespace ggdr {

// Of the layouts of weights, the two that kernels read as they are.
inline bool is_channels_last(const at::Tensor& w) {
  return !w.is_contiguous() && w.is_contiguous(at::MemoryFormat::ChannelsLast);
}

inline at::Tensor check_weights(const at::Tensor& w) {
  TORCH_CHECK_VALUE(w.dim() == 4, "demodulation: w must be [Cout, Cin, k, k], got ", w.sizes());
  TORCH_CHECK_TYPE(w.scalar_type() == at::kFloat || w.scalar_type() == at::kDouble,
                   "demodulation: w must be float32 or float64, got ", w.scalar_type());
  return is_channels_last(w) ? w : w.contiguous();
}

inline at::Tensor check_beside(const char* name, const at::Tensor& t, at::IntArrayRef sizes, const at::Tensor& w) {
  TORCH_CHECK_VALUE(t.sizes() == sizes && t.scalar_type() == w.scalar_type() && t.device() == w.device(),
                    "demodulation: ", name, " must be ", sizes, " ", w.scalar_type(), " on ", w.device(), ", got ",
                    t.sizes(), " ", t.scalar_type(), " on ", t.device());
  return t.contiguous();
}

inline at::Tensor check_styles(const at::Tensor& s, const at::Tensor& w) {
  TORCH_CHECK_VALUE(s.dim() == 2, "demodulation: s must be [N, Cin], got ", s.sizes());
  return check_beside("s", s, {s.size(0), w.size(1)}, w);
}

}  // namespace ggdr
