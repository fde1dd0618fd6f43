// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// The derivatives of modulate and demodulated_act, by the formulas of modulation.h: the derivatives of the backward
// passes and tangents are such passes again. There is none in `noise`, and none in `y`, as f'' is zero.

#pragma once

#include "autograd.h"

#include <ATen/ops/zeros_like.h>

namespace ggdr {
namespace {

// modulate.

std::tuple<Tensor, Tensor> call_modulate_backward(const Tensor& g, const Tensor& x, const Tensor& s) {
  static const auto operation =
      find<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&)>("ggdr::modulate_backward");
  return operation.call(g, x, s);
}

Tensor call_modulate_tangent(const Tensor& x, const Tensor& s, const Tensor& hx, const Tensor& hs) {
  static const auto operation =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&)>("ggdr::modulate_tangent");
  return operation.call(x, s, hx, hs);
}

Tensor call_modulate(const Tensor& x, const Tensor& s) {
  static const auto operation = find<Tensor(const Tensor&, const Tensor&)>("ggdr::modulate");
  return operation.call(x, s);
}

Tensor or_zeros(const Tensor& t, const Tensor& like) { return t.defined() ? t : at::zeros_like(like); }

bool any_defined(const variable_list& tensors) {
  for (const Tensor& t : tensors) {
    if (t.defined()) return true;
  }
  return false;
}

struct Modulate : Function<Modulate> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& s) {
    const Below below;
    ctx->save_for_backward({x, s});
    return call_modulate(x, s);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto [gx, gs] = call_modulate_backward(grads[0], saved[0], saved[1]);
    return {gx, gs};
  }
};

// A backward pass takes no zeros for results that have no gradient, as often only some of them have one.
struct ModulateBackward : Function<ModulateBackward> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& x, const Tensor& s) {
    const Below below;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({g, x, s});
    const auto [gx, gs] = call_modulate_backward(g, x, s);
    return {gx, gs};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    Tensor gg, gx, gs;
    if (any_defined(grads)) {
      const variable_list saved = ctx->get_saved_variables();
      const Tensor &g = saved[0], &x = saved[1], &s = saved[2];
      const Tensor hx = or_zeros(grads[0], g), hs = or_zeros(grads[1], s);
      if (ctx->needs_input_grad(0)) gg = call_modulate_tangent(x, s, hx, hs);
      if (ctx->needs_input_grad(1) || ctx->needs_input_grad(2)) std::tie(gx, gs) = call_modulate_backward(g, hx, hs);
    }
    return {gg, gx, gs};
  }
};

struct ModulateTangent : Function<ModulateTangent> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& s, const Tensor& hx, const Tensor& hs) {
    const Below below;
    ctx->save_for_backward({x, s, hx, hs});
    return call_modulate_tangent(x, s, hx, hs);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& g = grads[0];
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &s = saved[1], &hx = saved[2], &hs = saved[3];
    Tensor gx, gs, ghx, ghs;
    if (ctx->needs_input_grad(0) || ctx->needs_input_grad(3)) std::tie(gx, ghs) = call_modulate_backward(g, x, hs);
    if (ctx->needs_input_grad(1) || ctx->needs_input_grad(2)) std::tie(ghx, gs) = call_modulate_backward(g, hx, s);
    return {gx, gs, ghx, ghs};
  }
};

Tensor modulate(const Tensor& x, const Tensor& s) {
  if (is_differentiated(x, s)) return Modulate::apply(x, s);
  const Below below;
  return call_modulate(x, s);
}

std::tuple<Tensor, Tensor> modulate_backward(const Tensor& g, const Tensor& x, const Tensor& s) {
  if (is_differentiated(g, x, s)) {
    const variable_list results = ModulateBackward::apply(g, x, s);
    return {results[0], results[1]};
  }
  const Below below;
  return call_modulate_backward(g, x, s);
}

Tensor modulate_tangent(const Tensor& x, const Tensor& s, const Tensor& hx, const Tensor& hs) {
  if (is_differentiated(x, s, hx, hs)) return ModulateTangent::apply(x, s, hx, hs);
  const Below below;
  return call_modulate_tangent(x, s, hx, hs);
}

// demodulated_act.

using LeakyReLUConstants = std::tuple<double, double, double>;  // slope, gain, clamp
using ActGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // in x, d, b, strength

Tensor call_demodulated_act(const Tensor& x, const Tensor& d, const OptionalTensor& noise, const Tensor& strength,
                            const Tensor& b, const LeakyReLUConstants& constants) {
  static const auto operation = find<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&,
                                            const Tensor&, double, double, double)>("ggdr::demodulated_act");
  const auto [slope, gain, clamp] = constants;
  return operation.call(x, d, noise, strength, b, slope, gain, clamp);
}

ActGradients call_demodulated_act_backward(const Tensor& g, const Tensor& y, const Tensor& x, const Tensor& d,
                                           const OptionalTensor& noise, const LeakyReLUConstants& constants) {
  static const auto operation =
      find<ActGradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, double,
                        double, double)>("ggdr::demodulated_act_backward");
  const auto [slope, gain, clamp] = constants;
  return operation.call(g, y, x, d, noise, slope, gain, clamp);
}

Tensor call_demodulated_act_tangent(const Tensor& y, const Tensor& x, const Tensor& d, const OptionalTensor& noise,
                                    const Tensor& hx, const Tensor& hd, const OptionalTensor& hstrength,
                                    const OptionalTensor& hb, const LeakyReLUConstants& constants) {
  static const auto operation =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, const Tensor&,
                  const OptionalTensor&, const OptionalTensor&, double, double, double)>(
          "ggdr::demodulated_act_tangent");
  const auto [slope, gain, clamp] = constants;
  return operation.call(y, x, d, noise, hx, hd, hstrength, hb, slope, gain, clamp);
}

struct DemodulatedAct : Function<DemodulatedAct> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& d, const OptionalTensor& noise,
                        const Tensor& strength, const Tensor& b, const LeakyReLUConstants& constants) {
    const Below below;
    const Tensor y = call_demodulated_act(x, d, noise, strength, b, constants);
    keep(ctx, constants);
    ctx->save_for_backward({y, x, d, or_undefined(noise)});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto [gx, gd, gb, gstrength] = call_demodulated_act_backward(
        grads[0], saved[0], saved[1], saved[2], or_none(saved[3]), kept<LeakyReLUConstants>(ctx));
    return {gx, gd, Tensor(), gstrength, gb, Tensor()};
  }
};

// Takes no zeros for results that have no gradient, either.
struct DemodulatedActBackward : Function<DemodulatedActBackward> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& y, const Tensor& x,
                               const Tensor& d, const OptionalTensor& noise, const LeakyReLUConstants& constants) {
    const Below below;
    ctx->set_materialize_grads(false);
    keep(ctx, constants);
    ctx->save_for_backward({g, y, x, d, or_undefined(noise)});
    const auto [gx, gd, gb, gstrength] = call_demodulated_act_backward(g, y, x, d, noise, constants);
    return {gx, gd, gb, gstrength};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    Tensor gg, gx, gd;
    if (any_defined(grads)) {
      const auto constants = kept<LeakyReLUConstants>(ctx);
      const variable_list saved = ctx->get_saved_variables();
      const Tensor &g = saved[0], &y = saved[1], &x = saved[2], &d = saved[3];
      const Tensor hx = or_zeros(grads[0], g), hd = or_zeros(grads[1], d);
      if (ctx->needs_input_grad(0)) {
        gg = call_demodulated_act_tangent(y, x, d, or_none(saved[4]), hx, hd, or_none(grads[3]), or_none(grads[2]),
                                          constants);
      }
      if (ctx->needs_input_grad(2) || ctx->needs_input_grad(3)) {
        std::tie(gx, gd, std::ignore, std::ignore) =
            call_demodulated_act_backward(g, y, hx, hd, std::nullopt, constants);
      }
    }
    const Tensor none;
    return {gg, none, gx, gd, none, none};
  }
};

struct DemodulatedActTangent : Function<DemodulatedActTangent> {
  using Settings = std::tuple<bool, bool, LeakyReLUConstants>;  // whether there is hstrength, and hb

  static Tensor forward(AutogradContext* ctx, const Tensor& y, const Tensor& x, const Tensor& d,
                        const OptionalTensor& noise, const Tensor& hx, const Tensor& hd,
                        const OptionalTensor& hstrength, const OptionalTensor& hb,
                        const LeakyReLUConstants& constants) {
    const Below below;
    keep(ctx, Settings{hstrength.has_value(), hb.has_value(), constants});
    ctx->save_for_backward({y, x, d, or_undefined(noise), hx, hd});
    return call_demodulated_act_tangent(y, x, d, noise, hx, hd, hstrength, hb, constants);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& g = grads[0];
    const auto [has_strength, has_bias, constants] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &y = saved[0], &x = saved[1], &d = saved[2], &noise = saved[3], &hx = saved[4], &hd = saved[5];
    const size_t of_hx = noise.defined() ? 4 : 3, of_hd = of_hx + 1, of_strength = of_hd + 1;
    const size_t of_bias = of_strength + has_strength;
    Tensor gx, gd, ghx, ghd, ghb, ghstrength;
    if (ctx->needs_input_grad(1) || ctx->needs_input_grad(of_hd) ||
        (has_strength && ctx->needs_input_grad(of_strength)) || (has_bias && ctx->needs_input_grad(of_bias))) {
      std::tie(gx, ghd, ghb, ghstrength) = call_demodulated_act_backward(g, y, x, hd, or_none(noise), constants);
    }
    if (ctx->needs_input_grad(2) || ctx->needs_input_grad(of_hx)) {
      std::tie(ghx, gd, std::ignore, std::ignore) =
          call_demodulated_act_backward(g, y, hx, d, std::nullopt, constants);
    }
    const Tensor none;
    return {none, gx, gd, none, ghx, ghd, has_strength ? ghstrength : none, has_bias ? ghb : none, none};
  }
};

Tensor demodulated_act(const Tensor& x, const Tensor& d, const OptionalTensor& noise, const Tensor& strength,
                       const Tensor& b, double slope, double gain, double clamp) {
  const LeakyReLUConstants constants{slope, gain, clamp};
  if (is_differentiated(x, d, strength, b)) return DemodulatedAct::apply(x, d, noise, strength, b, constants);
  const Below below;
  return call_demodulated_act(x, d, noise, strength, b, constants);
}

ActGradients demodulated_act_backward(const Tensor& g, const Tensor& y, const Tensor& x, const Tensor& d,
                                      const OptionalTensor& noise, double slope, double gain, double clamp) {
  const LeakyReLUConstants constants{slope, gain, clamp};
  if (is_differentiated(g, x, d)) {
    const variable_list results = DemodulatedActBackward::apply(g, y, x, d, noise, constants);
    return {results[0], results[1], results[2], results[3]};
  }
  const Below below;
  return call_demodulated_act_backward(g, y, x, d, noise, constants);
}

Tensor demodulated_act_tangent(const Tensor& y, const Tensor& x, const Tensor& d, const OptionalTensor& noise,
                               const Tensor& hx, const Tensor& hd, const OptionalTensor& hstrength,
                               const OptionalTensor& hb, double slope, double gain, double clamp) {
  const LeakyReLUConstants constants{slope, gain, clamp};
  if (is_differentiated(x, d, hx, hd, hstrength, hb)) {
    return DemodulatedActTangent::apply(y, x, d, noise, hx, hd, hstrength, hb, constants);
  }
  const Below below;
  return call_demodulated_act_tangent(y, x, d, noise, hx, hd, hstrength, hb, constants);
}

}  // namespace
}  // namespace ggdr
