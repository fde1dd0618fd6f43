// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic and argument checks of bias_act, for the CPU and for CUDA.
//
//   order 0:  y = clamp(gain f(x + b))
//   order n:  (g + gb) gain f^(n)(x + b), zero where order 0 clamps
//
// f is the activation, f^(n) its n-th derivative, b and gb run along one dimension. Derivatives of order n are
// of the form of order n in g and gb, and of order n + 1 in x and b: the family is closed.
// The derivatives of linear, relu and lrelu are found from y; those of the others from x and b.

#pragma once

#include "common.h"

#include <c10/util/string_view.h>

#include <cmath>
#include <limits>
#include <optional>

namespace ggdr {

enum class Act { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish };

inline Act parse_act(c10::string_view name) {
  constexpr const char* names[] = {"linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"};
  for (int i = 0; i < 9; ++i) {
    if (name == names[i]) return static_cast<Act>(i);
  }
  TORCH_CHECK_VALUE(false, "bias_act: unknown activation act='", name, "'");
}

// Otherwise f^(n) is zero for n > 1, and f' is found from the sign of y.
constexpr bool is_smooth(Act act) { return act != Act::linear && act != Act::relu && act != Act::lrelu; }

// The order-th derivative of the logistic function, order 0 to 3.
template <class A>
GGDR_HD A sigmoid_derivative(int order, A v) {
  const A e = std::exp(-std::abs(v));
  const A small = e / (1 + e), large = 1 / (1 + e);
  const A s = v < 0 ? small : large;
  if (order == 0) return s;
  const A s1 = small * large;  // s (1 - s) without cancellation
  const A t = v < 0 ? (1 - e) / (1 + e) : (e - 1) / (1 + e);  // 1 - 2s
  if (order == 1) return s1;
  return order == 2 ? s1 * t : s1 * (1 - 6 * s1);
}

// The order-th derivative of the smooth activations, order 0 to 3. (elu and selu are among them: their result does
// not say where they are linear.)
template <class A>
GGDR_HD A smooth_activation(Act act, int order, A v) {
  switch (act) {
    case Act::tanh:  // 2 sigmoid(2v) - 1
      return order == 0 ? std::tanh(v) : A(1 << (order + 1)) * sigmoid_derivative(order, 2 * v);
    case Act::sigmoid:
      return sigmoid_derivative(order, v);
    case Act::softplus:
      if (order > 0) return sigmoid_derivative(order - 1, v);
      return (v > 0 ? v : A(0)) + std::log1p(std::exp(-std::abs(v)));
    case Act::swish:  // v sigmoid(v)
      if (order == 0) return v * sigmoid_derivative(0, v);
      return v * sigmoid_derivative(order, v) + order * sigmoid_derivative(order - 1, v);
    default: {  // elu and selu: Klambauer et al. 2017, arXiv:1706.02515, Eq. (2)
      const A scale = act == Act::selu ? A(1.0507009873554804934193349852946) : A(1);
      const A alpha = act == Act::selu ? A(1.6732632423543772848170429916717) : A(1);
      if (v > 0) return order == 0 ? scale * v : order == 1 ? scale : A(0);
      return scale * alpha * (order == 0 ? std::expm1(v) : std::exp(v));
    }
  }
}

// Constants of one call. V is A, or where the activation is not `smooth` a vector of it.
template <class A>
struct BiasAct {
  Act act;
  int order;
  A alpha, gain;
  A clamp;  // infinity for none; of order n > 0 as y's type rounds it
  bool clamps;

  // Order 0. NaN passes.
  template <bool smooth, class V>
  GGDR_HD V forward(V x, V b) const {
    const V zero{}, bound = zero + clamp;
    V y = x + b;
    if constexpr (smooth) {
      y = smooth_activation(act, 0, y);
    } else if (act == Act::relu) {
      y = y < zero ? zero : y;
    } else if (act == Act::lrelu) {
      y = y > zero ? y : y * alpha;
    }
    y = y * gain;
    y = y > bound ? bound : y;
    return y < -bound ? -bound : y;
  }

  // Orders above 0; if not smooth, order 1 only, with y in place of x.
  template <bool smooth, class V>
  GGDR_HD V derivative(V g, V gb, V ref, V b) const {
    V result = (g + gb) * gain;
    if constexpr (smooth) {
      const A v = ref + b;
      const bool clamped = std::abs(smooth_activation(act, 0, v) * gain) > clamp;
      return clamped ? A(0) : result * smooth_activation(act, order, v);
    } else {
      const V zero{}, bound = zero + clamp, size = ref < zero ? -ref : ref;
      if (act != Act::linear) {
        const V other = act == Act::relu ? zero : result * alpha;
        const V sign = gain > 0 ? ref : -ref;
        result = sign > zero ? result : other;
      }
      if (!clamps) return result;
      return size >= bound ? zero : result;
    }
  }
};

// Element i of a dense tensor's memory belongs to channel i / inner % count.
struct Channels {
  int64_t count, inner;
};

// Of dimension `dim` of a dense tensor; a single channel if nothing depends on it.
inline Channels channels_of(const at::Tensor& dense, int64_t dim, bool matter) {
  if (!matter || dense.size(dim) == 1) return {1, dense.numel()};
  return {dense.size(dim), dense.stride(dim)};
}

inline void check_type(const char* name, const at::Tensor& x) {
  TORCH_CHECK_TYPE(at::isFloatingType(x.scalar_type()), "bias_act: ", name, " must be of a floating type, got ",
                   x.scalar_type());
}

inline void check_vector(const char* name, const std::optional<at::Tensor>& b, const at::Tensor& x, int64_t dim) {
  if (!b.has_value()) return;
  TORCH_CHECK_VALUE(b->dim() == 1 && b->size(0) == x.size(dim), "bias_act: ", name, " of shape ", b->sizes(),
                    " does not fit dimension ", dim, " of x ", x.sizes());
  check_type(name, *b);
  TORCH_CHECK_VALUE(b->device() == x.device(), "bias_act: ", name, " is on ", b->device(), ", expected ", x.device());
}

// The checked arguments of a call. All tensors are dense and laid out alike.
struct BiasActCall {
  Act act;
  int order;
  double alpha, gain;
  std::optional<double> clamp;
  Channels channels;
  at::Tensor x;    // x or g; may be the memory of `out`
  at::Tensor ref;  // y or x of an order above 0; undefined where f' is constant
  at::Tensor out;

  template <class T>  // the type of x
  BiasAct<acc_t<T>> constants() const {
    using A = acc_t<T>;
    const bool from_y = order > 0 && !is_smooth(act);  // y was rounded, and so was a bound that it reached
    const A bound = static_cast<A>(clamp.value_or(std::numeric_limits<double>::infinity()));
    return {act, order, static_cast<A>(alpha), static_cast<A>(gain),
            from_y ? static_cast<A>(static_cast<T>(bound)) : bound, clamp.has_value()};
  }
};

inline BiasActCall check_bias_act(const at::Tensor& x, const std::optional<at::Tensor>& b, int64_t dim,
                                  c10::string_view act, double alpha, double gain, std::optional<double> clamp) {
  check_type("x", x);
  TORCH_CHECK_VALUE(!b.has_value() || (0 <= dim && dim < x.dim()), "bias_act: dim must be in [0, ", x.dim(), "), got ",
                    dim);
  TORCH_CHECK_VALUE(alpha >= 0, "bias_act: alpha must be at least 0, got ", alpha);
  TORCH_CHECK_VALUE(!clamp.has_value() || *clamp >= 0, "bias_act: clamp must be at least 0, got ", *clamp);
  check_vector("b", b, x, dim);
  BiasActCall call{parse_act(act), 0, alpha, gain, clamp, {}, {}, {}, at::empty_like(x)};
  call.x = in_layout_of(x, call.out);
  call.channels = channels_of(call.out, dim, b.has_value());
  return call;
}

inline BiasActCall check_bias_act_grad(const at::Tensor& g, const std::optional<at::Tensor>& gb,
                                       const std::optional<at::Tensor>& ref, const std::optional<at::Tensor>& b,
                                       int64_t order, int64_t dim, c10::string_view act, double alpha, double gain,
                                       std::optional<double> clamp, bool sums) {
  check_type("g", g);
  TORCH_CHECK_VALUE(!(b.has_value() || gb.has_value() || sums) || (0 <= dim && dim < g.dim()),
                    "bias_act: dim must be in [0, ", g.dim(), "), got ", dim);
  check_vector("b", b, g, dim);
  check_vector("gb", gb, g, dim);
  BiasActCall call{parse_act(act), static_cast<int>(order), alpha, gain, clamp, {}, {}, {}, {}};
  TORCH_CHECK_VALUE(1 <= order && order <= (is_smooth(call.act) ? 3 : 1),
                    "bias_act: has derivatives up to order 3, linear, relu and lrelu up to order 1; got ", order);
  TORCH_CHECK_VALUE(ref.has_value() || (call.act == Act::linear && !clamp.has_value()),
                    "bias_act: the derivative of act='", act, "' needs ref");
  if (ref.has_value()) {
    TORCH_CHECK_VALUE(ref->sizes() == g.sizes() && ref->scalar_type() == g.scalar_type() && ref->device() == g.device(),
                      "bias_act: ref must be like g, ", g.toString(), " ", g.sizes(), ", got ", ref->toString(), " ",
                      ref->sizes());
    call.ref = ref->is_non_overlapping_and_dense() ? *ref : ref->clone();
  }
  call.out = at::empty_like(ref.has_value() ? call.ref : g);
  call.x = in_layout_of(g, call.out);
  call.channels = channels_of(call.out, dim, b.has_value() || gb.has_value() || sums);
  return call;
}

}  // namespace ggdr
