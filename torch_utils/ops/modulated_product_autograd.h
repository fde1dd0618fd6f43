// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// The product of modulated_product, and its derivatives. With images n, pixels p, channels i and filters o, all are
// parts of F = sum of x[n, p, i] u[n, o, i] y[n, p, o], where u = gain w[o, i] s[n, i]:
//
//   modulated_product:       dF/dy of (x, w, s), or dF/dx of (y, w, s) if `adjoint`
//   modulated_product_grad:  dF/dw and dF/ds of (x, y, w, s), either empty if it is not asked for
//
// F is linear in each of the four, so that their derivatives are these again. The gain is a factor of the products over
// pixels or channels, which take it without a pass of its own.

#pragma once

#include "autograd.h"
#include "common.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

namespace ggdr {
namespace {

using ProductGrads = std::tuple<Tensor, Tensor>;  // in w and s

Tensor call_product(const Tensor& x, const Tensor& w, const Tensor& s, double gain, bool adjoint) {
  static const auto operation =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, double, bool)>("ggdr::modulated_product");
  return operation.call(x, w, s, gain, adjoint);
}

ProductGrads call_product_grad(const Tensor& x, const Tensor& y, const Tensor& w, const Tensor& s, double gain,
                               bool of_w, bool of_s) {
  static const auto operation =
      find<ProductGrads(const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, bool, bool)>(
          "ggdr::modulated_product_grad");
  return operation.call(x, y, w, s, gain, of_w, of_s);
}

// [N, C, H, W] to [N, H * W, C], without a copy if the maps are channels_last.
Tensor pixels(const Tensor& x) { return x.permute({0, 2, 3, 1}).reshape({x.size(0), x.size(2) * x.size(3), x.size(1)}); }

// gain a b of each image.
Tensor products(const Tensor& a, const Tensor& b, double gain) {
  return at::baddbmm(at::empty({1, 1, 1}, a.options()), a, b, 0, gain);
}

Tensor product_kernel(const Tensor& x, const Tensor& w, const Tensor& s, double gain, bool adjoint) {
  TORCH_CHECK_VALUE(x.dim() == 4 && w.dim() == 4 && s.dim() == 2 && w.numel() == w.size(0) * w.size(1) &&
                        s.size(0) == x.size(0) && s.size(1) == w.size(1) && x.size(1) == w.size(adjoint ? 0 : 1),
                    "modulated_product: x, w and s must be [N, Cin, H, W], [Cout, Cin, 1, 1] and [N, Cin], got ",
                    x.sizes(), ", ", w.sizes(), " and ", s.sizes());
  Tensor u = at::empty({s.size(0), w.size(0), w.size(1)}, x.options());
  at::mul_out(u, w.flatten(1), s.unsqueeze(1));
  const Tensor y = products(pixels(x), adjoint ? u : u.mT(), gain);
  return y.view({x.size(0), x.size(2), x.size(3), y.size(2)}).permute({0, 3, 1, 2});
}

ProductGrads product_grad_kernel(const Tensor& x, const Tensor& y, const Tensor& w, const Tensor& s, double gain,
                                 bool of_w, bool of_s) {
  const Tensor sums = products(pixels(y).mT(), pixels(x), gain);
  const Tensor none = at::empty({0}, w.options());
  return {of_w ? (sums * s.unsqueeze(1)).sum(0).view(w.sizes()) : none, of_s ? (sums * w.flatten(1)).sum(1) : none};
}

struct ModulatedProduct : Function<ModulatedProduct> {
  using Settings = std::tuple<double, bool>;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Tensor& s, double gain,
                        bool adjoint) {
    const Below below;
    keep(ctx, Settings{gain, adjoint});
    ctx->save_for_backward({x, w, s});
    return call_product(x, w, s, gain, adjoint);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& g = grads[0];
    const auto [gain, adjoint] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1], &s = saved[2];
    Tensor gx, gw, gs;
    if (ctx->needs_input_grad(0)) gx = call_product(g, w, s, gain, !adjoint);
    const bool of_w = ctx->needs_input_grad(1), of_s = ctx->needs_input_grad(2);
    if (of_w || of_s) {
      const auto [in_w, in_s] = call_product_grad(adjoint ? g : x, adjoint ? x : g, w, s, gain, of_w, of_s);
      if (of_w) gw = in_w;
      if (of_s) gs = in_s;
    }
    return {gx, gw, gs, Tensor(), Tensor()};
  }
};

// A sum whose terms may be undefined.
Tensor plus(const Tensor& a, const Tensor& b) { return !a.defined() ? b : b.defined() ? a + b : a; }

struct ModulatedProductGrad : Function<ModulatedProductGrad> {
  using Settings = std::tuple<double, bool, bool>;

  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& y, const Tensor& w,
                               const Tensor& s, double gain, bool of_w, bool of_s) {
    const Below below;
    ctx->set_materialize_grads(false);
    keep(ctx, Settings{gain, of_w, of_s});
    ctx->save_for_backward({x, y, w, s});
    const auto [gw, gs] = call_product_grad(x, y, w, s, gain, of_w, of_s);
    return {gw, gs};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor &hw = grads[0], &hs = grads[1];
    const auto [gain, has_w, has_s] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &y = saved[1], &w = saved[2], &s = saved[3];
    Tensor gx, gy, gw, gs;
    for (const bool of_w : {true, false}) {
      if (!(of_w ? has_w && hw.defined() : has_s && hs.defined())) continue;
      const Tensor &weight = of_w ? hw : w, &styles = of_w ? s : hs;
      if (ctx->needs_input_grad(0)) gx = plus(gx, call_product(y, weight, styles, gain, true));
      if (ctx->needs_input_grad(1)) gy = plus(gy, call_product(x, weight, styles, gain, false));
      if (!ctx->needs_input_grad(of_w ? 3 : 2)) continue;
      const auto [in_w, in_s] = call_product_grad(x, y, weight, styles, gain, !of_w, of_w);
      (of_w ? gs : gw) = of_w ? in_s : in_w;
    }
    return {gx, gy, gw, gs, Tensor(), Tensor(), Tensor()};
  }
};

Tensor modulated_product(const Tensor& x, const Tensor& w, const Tensor& s, double gain, bool adjoint) {
  if (is_differentiated(x, w, s)) return ModulatedProduct::apply(x, w, s, gain, adjoint);
  const Below below;
  return call_product(x, w, s, gain, adjoint);
}

ProductGrads modulated_product_grad(const Tensor& x, const Tensor& y, const Tensor& w, const Tensor& s, double gain,
                                    bool of_w, bool of_s) {
  if (is_differentiated(x, y, w, s)) {
    const variable_list results = ModulatedProductGrad::apply(x, y, w, s, gain, of_w, of_s);
    return {results[0], results[1]};
  }
  const Below below;
  return call_product_grad(x, y, w, s, gain, of_w, of_s);
}

}  // namespace
}  // namespace ggdr
