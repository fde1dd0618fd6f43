// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// The derivatives of convolutions. Together with the gradient of its weights, a convolution is bilinear, and the
// derivatives of each are the two again.

#pragma once

#include "autograd.h"

#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>

#include <array>

namespace ggdr {
namespace {

// PyTorch's.

struct Convolution : Function<Convolution> {
  // Stride, padding, transposed, and what a transposed one adds at the far edges of its result.
  using Settings = std::tuple<int64_t, int64_t, bool, std::vector<SymInt>>;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Settings& settings);
  static variable_list backward(AutogradContext* ctx, const variable_list& grads);
};

// Images and the gradient of their convolution to the gradient of the weights `w`.
struct WeightGradient : Function<WeightGradient> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& gy, const Tensor& w,
                        const Convolution::Settings& settings);
  static variable_list backward(AutogradContext* ctx, const variable_list& grads);
};

const std::array<SymInt, 2> kNoDilation{1, 1};

Tensor call_convolution(const Tensor& x, const Tensor& w, const Convolution::Settings& settings) {
  const auto& [stride, padding, transposed, output_padding] = settings;
  const std::array<SymInt, 2> strides{stride, stride}, paddings{padding, padding};
  return at::convolution_symint(x, w, std::nullopt, strides, paddings, kNoDilation, transposed, output_padding, 1);
}

// Gradients in x and w, undefined where they are not wanted.
std::tuple<Tensor, Tensor> call_convolution_backward(const Tensor& gy, const Tensor& x, const Tensor& w,
                                                     const Convolution::Settings& settings, bool in_x, bool in_w) {
  const auto& [stride, padding, transposed, output_padding] = settings;
  const std::array<SymInt, 2> strides{stride, stride}, paddings{padding, padding};
  const auto [gx, gw, none] = at::convolution_backward_symint(gy, x, w, std::nullopt, strides, paddings, kNoDilation,
                                                              transposed, output_padding, 1, {in_x, in_w, false});
  return {gx, gw};
}

// Of the convolution that takes results back to the size of `x`.
Convolution::Settings adjoint(const Convolution::Settings& settings, const Tensor& x, const Tensor& w) {
  const auto& [stride, padding, transposed, output_padding] = settings;
  std::vector<SymInt> rest{0, 0};
  for (int64_t axis = 0; axis < 2 && !transposed; ++axis) {
    rest[axis] = (x.sym_size(2 + axis) + 2 * padding - w.sym_size(2 + axis)) % stride;
  }
  return {stride, padding, !transposed, rest};
}

Tensor Convolution::forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Settings& settings) {
  const Below below;
  keep(ctx, settings);
  ctx->save_for_backward({x, w});
  return call_convolution(x, w, settings);
}

variable_list Convolution::backward(AutogradContext* ctx, const variable_list& grads) {
  const Tensor& gy = grads[0];
  const auto settings = kept<Settings>(ctx);
  const variable_list saved = ctx->get_saved_variables();
  const Tensor &x = saved[0], &w = saved[1];
  const bool in_x = ctx->needs_input_grad(0), in_w = ctx->needs_input_grad(1);
  Tensor gx, gw;
  if (!at::GradMode::is_enabled()) {  // both at once, as nothing will be differentiated again
    std::tie(gx, gw) = call_convolution_backward(gy, x, w, settings, in_x, in_w);
    return {gx, gw, Tensor()};
  }
  if (in_x) gx = Convolution::apply(gy, w, adjoint(settings, x, w));
  if (in_w) gw = WeightGradient::apply(x, gy, w.detach(), settings);
  return {gx, gw, Tensor()};
}

Tensor WeightGradient::forward(AutogradContext* ctx, const Tensor& x, const Tensor& gy, const Tensor& w,
                               const Convolution::Settings& settings) {
  const Below below;
  keep(ctx, settings);
  ctx->save_for_backward({x, gy});
  return std::get<1>(call_convolution_backward(gy, x, w, settings, false, true));  // of w, only the layout counts
}

variable_list WeightGradient::backward(AutogradContext* ctx, const variable_list& grads) {
  const Tensor& ggw = grads[0];
  const auto settings = kept<Convolution::Settings>(ctx);
  const variable_list saved = ctx->get_saved_variables();
  const Tensor &x = saved[0], &gy = saved[1];
  Tensor gx, ggy;
  if (ctx->needs_input_grad(0)) gx = Convolution::apply(gy, ggw, adjoint(settings, x, ggw));
  if (ctx->needs_input_grad(1)) ggy = Convolution::apply(x, ggw, settings);
  return {gx, ggy, Tensor(), Tensor()};
}

Tensor convolution_kernel(const Tensor& x, const Tensor& w, int64_t stride, int64_t padding, bool transposed) {
  return call_convolution(x, w, {stride, padding, transposed, {0, 0}});
}

Tensor convolution(const Tensor& x, const Tensor& w, int64_t stride, int64_t padding, bool transposed) {
  if (is_differentiated(x, w)) {
    return Convolution::apply(x, w, Convolution::Settings{stride, padding, transposed, {0, 0}});
  }
  const Below below;
  return convolution_kernel(x, w, stride, padding, transposed);
}

// conv3x3, which has kernels of its own for CPUs.

Tensor call_conv3x3(const Tensor& x, const Tensor& w, int64_t stride, int64_t padding, bool transpose) {
  static const auto operation = find<Tensor(const Tensor&, const Tensor&, int64_t, int64_t, bool)>("ggdr::conv3x3");
  return operation.call(x, w, stride, padding, transpose);
}

Tensor call_conv3x3_weight_grad(const Tensor& x, const Tensor& gy, int64_t stride, int64_t padding) {
  static const auto operation =
      find<Tensor(const Tensor&, const Tensor&, int64_t, int64_t)>("ggdr::conv3x3_weight_grad");
  return operation.call(x, gy, stride, padding);
}

struct Conv3x3 : Function<Conv3x3> {
  using Settings = std::tuple<int64_t, int64_t, bool>;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, int64_t stride, int64_t padding,
                        bool transpose) {
    const Below below;
    keep(ctx, Settings{stride, padding, transpose});
    ctx->save_for_backward({x, w});
    return call_conv3x3(x, w, stride, padding, transpose);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& gy = grads[0];
    const auto [stride, padding, transpose] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1];
    Tensor gx, gw;
    if (ctx->needs_input_grad(0)) gx = call_conv3x3(gy, w, stride, padding, !transpose);
    if (ctx->needs_input_grad(1)) {
      gw = call_conv3x3_weight_grad(transpose ? gy : x, transpose ? x : gy, stride, padding);
    }
    return {gx, gw, Tensor(), Tensor(), Tensor()};
  }
};

struct Conv3x3WeightGrad : Function<Conv3x3WeightGrad> {
  using Settings = std::tuple<int64_t, int64_t>;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& gy, int64_t stride, int64_t padding) {
    const Below below;
    keep(ctx, Settings{stride, padding});
    ctx->save_for_backward({x, gy});
    return call_conv3x3_weight_grad(x, gy, stride, padding);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& gw = grads[0];
    const auto [stride, padding] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    Tensor gx, ggy;
    if (ctx->needs_input_grad(0)) gx = call_conv3x3(saved[1], gw, stride, padding, true);
    if (ctx->needs_input_grad(1)) ggy = call_conv3x3(saved[0], gw, stride, padding, false);
    return {gx, ggy, Tensor(), Tensor()};
  }
};

Tensor conv3x3(const Tensor& x, const Tensor& w, int64_t stride, int64_t padding, bool transpose) {
  if (is_differentiated(x, w)) return Conv3x3::apply(x, w, stride, padding, transpose);
  const Below below;
  return call_conv3x3(x, w, stride, padding, transpose);
}

Tensor conv3x3_weight_grad(const Tensor& x, const Tensor& gy, int64_t stride, int64_t padding) {
  if (is_differentiated(x, gy)) return Conv3x3WeightGrad::apply(x, gy, stride, padding);
  const Below below;
  return call_conv3x3_weight_grad(x, gy, stride, padding);
}

}  // namespace
}  // namespace ggdr
