// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// The products of linear_layers, and their derivatives. Layer l takes input j(l) of x[n, j, i]. All are parts of
// F = sum over layers of gain x[n, j, i] w[o, i] y[n, o], with a w and a y of each layer:
//
//   linear_layers:             dF/dy of (x, w), plus biases if there are any
//   linear_layers_inputs_grad: dF/dx of (y, w)
//   linear_layers_weight_grad: dF/dw of (x, y)
//
// F is linear in each of the three, so that their derivatives are these again.

#pragma once

#include "autograd.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace ggdr {
namespace {

using Layers = std::tuple<std::vector<int64_t>, double>;  // the input of each, and their gain

variable_list call_linear_layers(const Tensor& x, TensorList w, TensorList b, const Layers& layers) {
  static const auto operation = find<variable_list(const Tensor&, TensorList, TensorList, at::IntArrayRef, double)>(
      "ggdr::linear_layers");
  const auto& [inputs, gain] = layers;
  return operation.call(x, w, b, inputs, gain);
}

Tensor call_inputs_grad(TensorList y, TensorList w, int64_t num_inputs, const Layers& layers) {
  static const auto operation = find<Tensor(TensorList, TensorList, int64_t, at::IntArrayRef, double)>(
      "ggdr::linear_layers_inputs_grad");
  const auto& [inputs, gain] = layers;
  return operation.call(y, w, num_inputs, inputs, gain);
}

variable_list call_layers_weight_grad(const Tensor& x, TensorList y, const Layers& layers) {
  static const auto operation = find<variable_list(const Tensor&, TensorList, at::IntArrayRef, double)>(
      "ggdr::linear_layers_weight_grad");
  const auto& [inputs, gain] = layers;
  return operation.call(x, y, inputs, gain);
}

// The kernels, of any device.

variable_list linear_layers_kernel(const Tensor& x, TensorList w, TensorList b, at::IntArrayRef inputs, double gain) {
  TORCH_CHECK_VALUE(x.dim() == 3, "linear_layers: x must be [N, num_inputs, in_features], got ", x.sizes());
  TORCH_CHECK_VALUE(inputs.size() == w.size() && (b.empty() || b.size() == w.size()),
                    "linear_layers: each layer has a weight, a bias and an input, got ", w.size(), ", ", b.size(),
                    " and ", inputs.size());
  variable_list ys;
  for (size_t i = 0; i < w.size(); ++i) {
    TORCH_CHECK_VALUE(w[i].dim() == 2 && w[i].size(1) == x.size(2) && (b.empty() || b[i].sizes() == w[i].sizes().slice(0, 1)),
                      "linear_layers: weight and bias of layer ", i, " must be [out_features, ", x.size(2),
                      "] and [out_features], got ", w[i].sizes(), " and ", b.empty() ? at::IntArrayRef() : b[i].sizes());
    const Tensor start = b.empty() ? at::empty({x.size(0), w[i].size(0)}, x.options()) : b[i];
    ys.push_back(at::addmm(start, x.select(1, inputs[i]), w[i].t(), b.empty() ? 0 : 1, gain));
  }
  return ys;
}

Tensor inputs_grad_kernel(TensorList y, TensorList w, int64_t num_inputs, at::IntArrayRef inputs, double gain) {
  const Tensor x = at::zeros({y[0].size(0), num_inputs, w[0].size(1)}, y[0].options());
  for (size_t i = 0; i < w.size(); ++i) x.select(1, inputs[i]).addmm_(y[i], w[i], 1, gain);
  return x;
}

variable_list layers_weight_grad_kernel(const Tensor& x, TensorList y, at::IntArrayRef inputs, double gain) {
  variable_list w;
  for (size_t i = 0; i < y.size(); ++i) {
    const Tensor start = at::empty({y[i].size(1), x.size(2)}, x.options());
    w.push_back(at::addmm(start, y[i].t(), x.select(1, inputs[i]), 0, gain));
  }
  return w;
}

// How they are differentiated.

variable_list joined(const Tensor& first, TensorList rest) {
  variable_list all{first};
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

bool any_needed(const AutogradContext* ctx, size_t first, size_t num) {
  for (size_t i = first; i < first + num; ++i) {
    if (ctx->needs_input_grad(i)) return true;
  }
  return false;
}

struct LinearLayers : Function<LinearLayers> {
  using Settings = std::tuple<Layers, bool>;  // whether there are biases

  static variable_list forward(AutogradContext* ctx, const Tensor& x, TensorList w, TensorList b,
                               const Layers& layers) {
    const Below below;
    keep(ctx, Settings{layers, !b.empty()});
    ctx->save_for_backward(joined(x, w));
    return call_linear_layers(x, w, b, layers);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto [layers, has_biases] = kept<Settings>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor& x = saved[0];
    const size_t num = grads.size();
    variable_list results(1 + num + has_biases * num + 1);
    if (ctx->needs_input_grad(0)) {
      results[0] = call_inputs_grad(grads, TensorList(saved).slice(1), x.size(1), layers);
    }
    if (any_needed(ctx, 1, num)) {
      const variable_list of_w = call_layers_weight_grad(x, grads, layers);
      std::copy(of_w.begin(), of_w.end(), results.begin() + 1);
    }
    if (has_biases && any_needed(ctx, 1 + num, num)) {
      std::vector<int64_t> widths;
      for (const Tensor& grad : grads) widths.push_back(grad.size(1));
      const variable_list of_b = at::cat(grads, 1).sum(0).split(widths);
      std::copy(of_b.begin(), of_b.end(), results.begin() + 1 + num);
    }
    return results;
  }
};

struct LayersInputsGrad : Function<LayersInputsGrad> {
  static Tensor forward(AutogradContext* ctx, TensorList y, TensorList w, int64_t num_inputs, const Layers& layers) {
    const Below below;
    keep(ctx, layers);
    variable_list saved = y.vec();
    saved.insert(saved.end(), w.begin(), w.end());
    ctx->save_for_backward(saved);
    return call_inputs_grad(y, w, num_inputs, layers);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto layers = kept<Layers>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const size_t num = saved.size() / 2;
    const TensorList y = TensorList(saved).slice(0, num), w = TensorList(saved).slice(num);
    variable_list results(2 * num + 2);
    if (any_needed(ctx, 0, num)) {
      const variable_list of_y = call_linear_layers(grads[0], w, {}, layers);
      std::copy(of_y.begin(), of_y.end(), results.begin());
    }
    if (any_needed(ctx, num, num)) {
      const variable_list of_w = call_layers_weight_grad(grads[0], y, layers);
      std::copy(of_w.begin(), of_w.end(), results.begin() + num);
    }
    return results;
  }
};

struct LayersWeightGrad : Function<LayersWeightGrad> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, TensorList y, const Layers& layers) {
    const Below below;
    keep(ctx, layers);
    ctx->save_for_backward(joined(x, y));
    return call_layers_weight_grad(x, y, layers);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto layers = kept<Layers>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor& x = saved[0];
    const size_t num = grads.size();
    variable_list results(1 + num + 1);
    if (ctx->needs_input_grad(0)) {
      results[0] = call_inputs_grad(TensorList(saved).slice(1), grads, x.size(1), layers);
    }
    if (any_needed(ctx, 1, num)) {
      const variable_list of_y = call_linear_layers(x, grads, {}, layers);
      std::copy(of_y.begin(), of_y.end(), results.begin() + 1);
    }
    return results;
  }
};

variable_list linear_layers(const Tensor& x, TensorList w, TensorList b, at::IntArrayRef inputs, double gain) {
  const Layers layers{inputs.vec(), gain};
  if (is_differentiated(x, w, b)) return LinearLayers::apply(x, w, b, layers);
  const Below below;
  return call_linear_layers(x, w, b, layers);
}

Tensor linear_layers_inputs_grad(TensorList y, TensorList w, int64_t num_inputs, at::IntArrayRef inputs, double gain) {
  const Layers layers{inputs.vec(), gain};
  if (is_differentiated(y, w)) return LayersInputsGrad::apply(y, w, num_inputs, layers);
  const Below below;
  return call_inputs_grad(y, w, num_inputs, layers);
}

variable_list linear_layers_weight_grad(const Tensor& x, TensorList y, at::IntArrayRef inputs, double gain) {
  const Layers layers{inputs.vec(), gain};
  if (is_differentiated(x, y)) return LayersWeightGrad::apply(x, y, layers);
  const Below below;
  return call_layers_weight_grad(x, y, layers);
}

}  // namespace
}  // namespace ggdr
