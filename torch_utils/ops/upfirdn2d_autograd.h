// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// The derivative of upfirdn2d: its adjoint resamples the other way, with the filter turned around.

#pragma once

#include "autograd.h"

namespace ggdr {
namespace {

using Factors = std::vector<int64_t>;     // x, y
using Padding = std::vector<c10::SymInt>; // x0, x1, y0, y1

Tensor call_upfirdn2d(const Tensor& x, const Tensor& f, const Factors& up, const Factors& down, const Padding& padding,
                      bool flip, double gain) {
  static const auto operation = find<Tensor(const Tensor&, const Tensor&, at::IntArrayRef, at::IntArrayRef,
                                            c10::SymIntArrayRef, bool, double)>("ggdr::upfirdn2d");
  return operation.call(x, f, up, down, padding, flip, gain);
}

struct Upfirdn2d : Function<Upfirdn2d> {
  using Settings = std::tuple<Factors, Factors, Padding, bool, double, SymInt, SymInt>;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& f, const Factors& up, const Factors& down,
                        const Padding& padding, bool flip, double gain) {
    const Below below;
    keep(ctx, Settings{up, down, padding, flip, gain, x.sym_size(2), x.sym_size(3)});
    ctx->save_for_backward({f});
    return call_upfirdn2d(x, f, up, down, padding, flip, gain);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& g = grads[0];
    const auto [up, down, padding, flip, gain, height, width] = kept<Settings>(ctx);
    const Tensor f = ctx->get_saved_variables()[0];
    const Padding adjoint{f.sym_size(-1) - 1 - padding[0],
                          width * up[0] - g.sym_size(3) * down[0] + padding[0] - up[0] + 1,
                          f.sym_size(0) - 1 - padding[2],
                          height * up[1] - g.sym_size(2) * down[1] + padding[2] - up[1] + 1};
    variable_list results(7);
    results[0] = call_upfirdn2d(g, f, down, up, adjoint, !flip, gain);
    return results;
  }
};

Tensor upfirdn2d(const Tensor& x, const Tensor& f, at::IntArrayRef up, at::IntArrayRef down,
                 c10::SymIntArrayRef padding, bool flip, double gain) {
  if (is_differentiated(x)) return Upfirdn2d::apply(x, f, up.vec(), down.vec(), padding.vec(), flip, gain);
  const Below below;
  return call_upfirdn2d(x, f, up.vec(), down.vec(), padding.vec(), flip, gain);
}

}  // namespace
}  // namespace ggdr
