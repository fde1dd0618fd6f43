// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// The derivatives of bias_act: of order n in g and gb they are of order n, in x and b of order n + 1.

#pragma once

#include "autograd.h"

#include <string>

namespace ggdr {
namespace {

using Activation = std::tuple<int64_t, std::string, double, double, std::optional<double>>;  // dim, act, ..., clamp

bool is_curved(const Activation& activation) {
  const std::string& act = std::get<1>(activation);
  return act != "linear" && act != "relu" && act != "lrelu";
}

bool is_identity(const Activation& activation) {  // times gain
  return std::get<1>(activation) == "linear" && !std::get<4>(activation);
}

Tensor call_bias_act(const Tensor& x, const OptionalTensor& b, const Activation& activation) {
  static const auto operation = find<Tensor(const Tensor&, const OptionalTensor&, int64_t, c10::string_view, double,
                                            double, std::optional<double>)>("ggdr::bias_act");
  return std::apply([&](const auto&... each) { return operation.call(x, b, each...); }, activation);
}

std::tuple<Tensor, Tensor> call_bias_act_grad(const Tensor& g, const OptionalTensor& gb, const OptionalTensor& ref,
                                              const OptionalTensor& b, int64_t order, const Activation& activation,
                                              OptionalType sum_type) {
  static const auto operation =
      find<std::tuple<Tensor, Tensor>(const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                      const OptionalTensor&, int64_t, int64_t, c10::string_view, double, double,
                                      std::optional<double>, OptionalType)>("ggdr::bias_act_grad");
  return std::apply([&](const auto&... each) { return operation.call(g, gb, ref, b, order, each..., sum_type); },
                    activation);
}

// x + b along the activation's dimension, of the type of x.
Tensor plus(const Tensor& x, const Tensor& b, const Activation& activation) {
  if (!b.defined()) return x;
  std::vector<int64_t> shape(x.dim(), 1);
  shape[std::get<0>(activation)] = -1;
  return x.add(b.to(x.scalar_type()).reshape(shape));
}

struct BiasAct : Function<BiasAct> {
  using Settings = std::tuple<Activation, OptionalType>;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& b, const Activation& activation) {
    const Below below;
    const Tensor y = call_bias_act(x, b, activation);
    keep(ctx, Settings{activation, type_of(b)});
    if (is_curved(activation)) {
      ctx->save_for_backward({x, or_undefined(b)});
    } else {
      ctx->save_for_backward({is_identity(activation) ? Tensor() : y, Tensor()});
    }
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto [activation, b_type] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const bool sums = b_type && ctx->needs_input_grad(1);
    auto [x_grad, b_grad] = call_bias_act_grad(grads[0], std::nullopt, or_none(saved[0]), or_none(saved[1]), 1,
                                               activation, sums ? b_type : std::nullopt);
    return {x_grad, sums ? b_grad : Tensor(), Tensor()};
  }
};

struct BiasActGrad : Function<BiasActGrad> {
  using Settings = std::tuple<int64_t, Activation, OptionalType, OptionalType, bool, bool>;

  static variable_list forward(AutogradContext* ctx, const Tensor& g, const OptionalTensor& gb,
                               const OptionalTensor& ref, const OptionalTensor& b, int64_t order,
                               const Activation& activation, OptionalType sum_type) {
    const Below below;
    const auto [out, sums] = call_bias_act_grad(g, gb, ref, b, order, activation, sum_type);
    keep(ctx, Settings{order, activation, type_of(gb), type_of(b), ref.has_value(), sum_type.has_value()});
    const bool curved = is_curved(activation);
    const Tensor none;
    ctx->save_for_backward(
        {or_undefined(ref), or_undefined(b), curved ? g : none, curved ? or_undefined(gb) : none});
    return {out, sums};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto [order, activation, gb_type, b_type, has_ref, has_sums] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const OptionalTensor ref = or_none(saved[0]), b = or_none(saved[1]);
    const Tensor hb = has_sums ? grads[1] : Tensor();
    const size_t first_ref = gb_type ? 2 : 1, first_b = first_ref + has_ref;
    const bool for_g = ctx->needs_input_grad(0), for_gb = gb_type && ctx->needs_input_grad(1);
    const bool for_ref = is_curved(activation) && ctx->needs_input_grad(first_ref);
    const bool for_b = is_curved(activation) && b_type && ctx->needs_input_grad(first_b);
    Tensor g_grad, gb_grad, ref_grad, b_grad;
    if (for_g || for_gb) {
      std::tie(g_grad, gb_grad) = call_bias_act_grad(grads[0], or_none(hb), ref, b, order, activation,
                                                     for_gb ? gb_type : std::nullopt);
    }
    if (for_ref || for_b) {
      const Tensor product = plus(grads[0], hb, activation).mul(plus(saved[2], saved[3], activation));
      std::tie(ref_grad, b_grad) = call_bias_act_grad(product, std::nullopt, ref, b, order + 1, activation,
                                                      for_b ? b_type : std::nullopt);
    }
    const Tensor none;
    return {g_grad, for_gb ? gb_grad : none, ref_grad, for_b ? b_grad : none, none, none, none};
  }
};

Tensor bias_act(const Tensor& x, const OptionalTensor& b, int64_t dim, c10::string_view act, double alpha, double gain,
                std::optional<double> clamp) {
  const Activation activation{dim, std::string(act), alpha, gain, clamp};
  if (is_differentiated(x, b)) return BiasAct::apply(x, b, activation);
  const Below below;
  return call_bias_act(x, b, activation);
}

std::tuple<Tensor, Tensor> bias_act_grad(const Tensor& g, const OptionalTensor& gb, const OptionalTensor& ref,
                                         const OptionalTensor& b, int64_t order, int64_t dim, c10::string_view act,
                                         double alpha, double gain, std::optional<double> clamp,
                                         OptionalType sum_type) {
  const Activation activation{dim, std::string(act), alpha, gain, clamp};
  if (is_differentiated(g, gb, ref, b)) {
    const variable_list results = BiasActGrad::apply(g, gb, ref, b, order, activation, sum_type);
    return {results[0], results[1]};
  }
  const Below below;
  return call_bias_act_grad(g, gb, ref, b, order, activation, sum_type);
}

}  // namespace
}  // namespace ggdr
