// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic and argument checks of what surrounds a modulated convolution, for the CPU and for CUDA.
//
//   modulate:         y = x s
//   demodulated_act:  y = f(v),  v = x d + noise strength + b,  f(v) = clamp(gain leaky_relu(v))
//
// For each image and channel there is one s and one d, for each image and pixel a noise, for each channel a b. The
// family is closed: all further derivatives are of these two forms, which for `modulate` have f' = 1 and no noise or b.
// f' is found from y, and f'' is zero.
//
//   backward, of g:   gx = g f' d,  gd = sum of g f' x,  gb = sum of g f',  gstrength = sum of g f' noise
//   tangent, of hx, hd, hstrength, hb:   f' (hx d + x hd + noise hstrength + hb)

#pragma once

#include "common.h"

#include <limits>
#include <optional>

namespace ggdr {

// Constants of one call. V is A or a vector of it.
template <class A>
struct LeakyReLU {
  A slope, gain;
  A clamp;  // infinity for none; as the maps' type rounds it, so that the result tells where it was clamped
  bool clamps;

  // NaN passes.
  template <class V>
  GGDR_HD V forward(V v) const {
    const V zero{}, bound = zero + clamp;
    v = v * (v > zero ? zero + gain : zero + gain * slope);
    v = v > bound ? bound : v;
    return v < -bound ? -bound : v;
  }

  template <class V>
  GGDR_HD V derivative(V y) const {
    const V zero{}, bound = zero + clamp, size = y < zero ? -y : y;
    const V rise = y > zero ? zero + gain : zero + gain * slope;
    if (!clamps) return rise;
    return size >= bound ? zero : rise;
  }
};

// For maps of type T; a negative clamp is none.
template <class T>
LeakyReLU<acc_t<T>> leaky_relu(double slope, double gain, double clamp) {
  using A = acc_t<T>;
  TORCH_CHECK_VALUE(slope > 0 && gain > 0, "modulation: slope and gain must be positive, got ", slope, " and ", gain);
  const A bound = clamp < 0 ? std::numeric_limits<A>::infinity() : static_cast<A>(static_cast<T>(clamp));
  return {static_cast<A>(slope), static_cast<A>(gain), bound, clamp >= 0};
}

inline void check_modulated(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4, "modulation: x must be [N, C, H, W], got ", x.sizes());
  TORCH_CHECK_TYPE(at::isFloatingType(x.scalar_type()), "modulation: x must be of a floating type, got ",
                   x.scalar_type());
}

inline void check_like(const char* name, const at::Tensor& t, const at::Tensor& x) {
  TORCH_CHECK_VALUE(t.sizes() == x.sizes() && t.scalar_type() == x.scalar_type() && t.device() == x.device(),
                    "modulation: ", name, " must be like x, ", x.toString(), " ", x.sizes(), ", got ", t.toString(),
                    " ", t.sizes());
}

// Styles and the like, of the type in which maps like x are added and multiplied.
inline at::Tensor check_values(const char* name, const at::Tensor& t, at::IntArrayRef sizes, const at::Tensor& x) {
  const at::ScalarType type = acc_scalar_type(x.scalar_type());
  TORCH_CHECK_VALUE(t.sizes() == sizes && t.scalar_type() == type && t.device() == x.device(), "modulation: ", name,
                    " must be ", sizes, " ", type, " on ", x.device(), ", got ", t.sizes(), " ", t.scalar_type(),
                    " on ", t.device());
  return t.contiguous();
}

inline at::Tensor check_by_image(const char* name, const at::Tensor& t, const at::Tensor& x) {
  return check_values(name, t, {x.size(0), x.size(1)}, x);
}

// Undefined for none.
inline at::Tensor check_optional(const char* name, const std::optional<at::Tensor>& t, at::IntArrayRef sizes,
                                 const at::Tensor& x) {
  return t.has_value() ? check_values(name, *t, sizes, x) : at::Tensor();
}

// [N, 1, H, W], or one for all images, [1, 1, H, W] or [H, W]; undefined for none.
inline at::Tensor check_noise(const std::optional<at::Tensor>& noise, const at::Tensor& x) {
  if (!noise.has_value()) return {};
  const int64_t images = noise->dim() == 4 && noise->size(0) == 1 ? 1 : x.size(0);
  const int64_t sizes[] = {images, 1, x.size(2), x.size(3)};
  return check_values("noise", *noise, at::IntArrayRef(sizes).slice(noise->dim() == 2 ? 2 : 0), x);
}

// From one image's noise to the next one's.
inline int64_t noise_step(const at::Tensor& noise) {
  return noise.dim() == 4 && noise.size(0) > 1 ? noise.stride(0) : 0;
}

}  // namespace ggdr
