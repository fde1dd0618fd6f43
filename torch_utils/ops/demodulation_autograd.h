// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// The derivatives of demodulation, in the terms of demodulation.h. Those of its gradients are PyTorch's operations,
// which can be differentiated again. Where they will not be, the one that path length regularisation takes is compiled.

#pragma once

#include "autograd.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros_like.h>

namespace ggdr {
namespace {

using Demodulated = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;  // s', d, q, c, m

Demodulated call_demodulation(const Tensor& w, const Tensor& s, bool normalize) {
  static const auto operation = find<Demodulated(const Tensor&, const Tensor&, bool)>("ggdr::demodulation");
  return operation.call(w, s, normalize);
}

Tensor call_styles_grad(const Tensor& gs, const Tensor& gd, const Tensor& d, const Tensor& w, const Tensor& s,
                        const Tensor& q, const Tensor& c, const Tensor& m) {
  static const auto operation =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                  const Tensor&, const Tensor&)>("ggdr::demodulation_styles_grad");
  return operation.call(gs, gd, d, w, s, q, c, m);
}

Tensor call_weight_grad(const Tensor& gd, const Tensor& d, const Tensor& w, const Tensor& s, const Tensor& c) {
  static const auto operation = find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                            const Tensor&)>("ggdr::demodulation_weight_grad");
  return operation.call(gd, d, w, s, c);
}

// Of the gradient of styles: h, and in gd, d, w and s.
Demodulated call_styles_grad_backward(const Tensor& h, const Tensor& gd, const Tensor& d, const Tensor& w,
                                      const Tensor& s, const Tensor& q, const Tensor& c, const Tensor& m) {
  static const auto operation =
      find<Demodulated(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                       const Tensor&, const Tensor&)>("ggdr::demodulation_styles_grad_backward");
  return operation.call(h, gd, d, w, s, q, c, m);
}

// [Cout] or [Cout, Cin], for each tap of weights.
Tensor by_filter(const Tensor& t) { return t.dim() == 1 ? t.view({-1, 1, 1, 1}) : t.unsqueeze(2).unsqueeze(3); }

// Both gradients go through t d' with E = d', the derivative of the sums under the root: those in gd and d.
std::tuple<Tensor, Tensor> coefficient_grads(const Tensor& gd, const Tensor& d, const Tensor& e) {
  const Tensor slope = d * d * e;
  return {slope * d * -0.5, slope * gd * -1.5};
}

Tensor sum_grads(const Tensor& gd, const Tensor& d) { return d * d * d * gd * -0.5; }  // t

struct Demodulation : Function<Demodulation> {
  // `all` are the results; those beside s' and d are constants to the derivatives.
  static variable_list forward(AutogradContext* ctx, const Tensor& w, const Tensor& s, bool normalize,
                               Demodulated* all) {
    const Below below;
    *all = call_demodulation(w, s, normalize);
    const auto& [scaled, d, q, c, m] = *all;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({w, scaled, d, q, c, m});
    return {scaled, d};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads);
};

// s' and d are results of demodulation, which takes their gradients further; q is of the weights.
struct DemodulationStylesGrad : Function<DemodulationStylesGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gs, const Tensor& gd, const Tensor& d, const Tensor& w,
                        const Tensor& s, const Tensor& q, const Tensor& c, const Tensor& m) {
    const Below below;
    ctx->save_for_backward({gd, d, w, s, q, c, m});
    return call_styles_grad(gs, gd, d, w, s, q, c, m);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &gd = saved[0], &d = saved[1], &w = saved[2], &s = saved[3], &c = saved[5], &m = saved[6];
    if (!at::GradMode::is_enabled()) {
      const auto [h, ggd, of_d, of_w, of_s] = call_styles_grad_backward(grads[0], gd, d, w, s, saved[4], c, m);
      return {h, ggd, of_d, of_w, of_s, Tensor(), Tensor(), Tensor()};
    }
    const Tensor q = (w * by_filter(c)).square().sum({2, 3});  // that saved is no function of the weights
    const Tensor h = grads[0] * m.unsqueeze(1), twice = h * 2, along = twice * s, t = sum_grads(gd, d);
    const auto [ggd, of_d] = coefficient_grads(gd, d, at::matmul(along, q.t()));
    Tensor of_w;
    if (ctx->needs_input_grad(3)) of_w = w * by_filter(at::matmul(t.t(), along) * (2 * c.square()).unsqueeze(1));
    const Tensor none;
    return {h, ggd, of_d, of_w, twice * at::matmul(t, q), none, none, none};
  }
};

struct DemodulationWeightGrad : Function<DemodulationWeightGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gd, const Tensor& d, const Tensor& w, const Tensor& s,
                        const Tensor& c) {
    const Below below;
    ctx->save_for_backward({gd, d, w, s, c});
    return call_weight_grad(gd, d, w, s, c);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &gd = saved[0], &d = saved[1], &w = saved[2], &s = saved[3];
    const Tensor h = grads[0] * by_filter(2 * saved[4].square()), along = (h * w).sum({2, 3});
    const Tensor t = sum_grads(gd, d), squares = s.square();
    const auto [ggd, of_d] = coefficient_grads(gd, d, at::matmul(squares, along.t()));
    return {ggd, of_d, h * by_filter(at::matmul(t.t(), squares)), 2 * s * at::matmul(t, along), Tensor()};
  }
};

Tensor demodulation_styles_grad(const Tensor& gs, const Tensor& gd, const Tensor& d, const Tensor& w, const Tensor& s,
                                const Tensor& q, const Tensor& c, const Tensor& m) {
  if (is_differentiated(gs, gd, d, w, s)) return DemodulationStylesGrad::apply(gs, gd, d, w, s, q, c, m);
  const Below below;
  return call_styles_grad(gs, gd, d, w, s, q, c, m);
}

Tensor demodulation_weight_grad(const Tensor& gd, const Tensor& d, const Tensor& w, const Tensor& s, const Tensor& c) {
  if (is_differentiated(gd, d, w, s)) return DemodulationWeightGrad::apply(gd, d, w, s, c);
  const Below below;
  return call_weight_grad(gd, d, w, s, c);
}

variable_list Demodulation::backward(AutogradContext* ctx, const variable_list& grads) {
  const variable_list saved = ctx->get_saved_variables();
  const Tensor &w = saved[0], &s = saved[1], &d = saved[2], &q = saved[3], &c = saved[4], &m = saved[5];
  const Tensor gd = grads[1].defined() ? grads[1] : at::zeros_like(d);
  Tensor gw, gs;
  if (ctx->needs_input_grad(0)) gw = call_weight_grad(gd, d, w, s, c);
  if (ctx->needs_input_grad(1)) {
    gs = call_styles_grad(grads[0].defined() ? grads[0] : at::zeros_like(s), gd, d, w, s, q, c, m);
  }
  return {gw, gs, Tensor(), Tensor()};
}

Demodulated demodulation(const Tensor& w, const Tensor& s, bool normalize) {
  if (is_differentiated(w, s)) {
    Demodulated all;
    const variable_list results = Demodulation::apply(w, s, normalize, &all);
    std::get<0>(all) = results[0], std::get<1>(all) = results[1];
    return all;
  }
  const Below below;
  return call_demodulation(w, s, normalize);
}

// scaled_weight is linear: its derivative is the same in the other direction.

Tensor call_scaled_weight(const Tensor& w, const OptionalTensor& scales, double gain, at::ScalarType type) {
  static const auto operation =
      find<Tensor(const Tensor&, const OptionalTensor&, double, at::ScalarType)>("ggdr::scaled_weight");
  return operation.call(w, scales, gain, type);
}

struct ScaledWeight : Function<ScaledWeight> {
  using Settings = std::tuple<double, int64_t>;  // gain, and the type of the weights

  static Tensor forward(AutogradContext* ctx, const Tensor& w, const OptionalTensor& scales, double gain,
                        at::ScalarType type) {
    const Below below;
    keep(ctx, Settings{gain, static_cast<int64_t>(w.scalar_type())});
    ctx->save_for_backward({or_undefined(scales)});
    return call_scaled_weight(w, scales, gain, type);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto [gain, type] = kept<Settings>(ctx);
    const OptionalTensor scales = or_none(ctx->get_saved_variables()[0]);
    const Tensor none;
    return {call_scaled_weight(grads[0], scales, gain, static_cast<at::ScalarType>(type)), none, none, none};
  }
};

Tensor scaled_weight(const Tensor& w, const OptionalTensor& scales, double gain, at::ScalarType type) {
  if (is_differentiated(w)) return ScaledWeight::apply(w, scales, gain, type);
  const Below below;
  return call_scaled_weight(w, scales, gain, type);
}

}  // namespace
}  // namespace ggdr
