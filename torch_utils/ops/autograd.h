// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// What the derivatives of the operations share. Each operation has
//
// * a function `call_NAME`, which goes through the dispatcher,
// * a `Function` whose backward pass is written with the operations themselves, so that it can be differentiated again,
// * a kernel for the key Autograd, which takes the Function if there is something to differentiate.
//
// A gradient is computed only if this backward pass asks for it. `needs_input_grad` numbers the tensors among the
// arguments of `apply`, without those that are none. Gradients of results that have none are zeros: so are those of
// weights and biases then, and an optimiser takes its step with them.

#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <tuple>
#include <vector>

namespace ggdr {
namespace {

using at::Tensor;
using at::TensorList;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;
using OptionalType = std::optional<at::ScalarType>;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Below = at::AutoDispatchBelowADInplaceOrView;  // while it lives, calls go to the kernels

// An operation that Python has declared.
template <class F>
c10::TypedOperatorHandle<F> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<F>();
}

// A tuple of arguments that are no tensors, for the backward pass.
template <class Settings>
void keep(AutogradContext* ctx, const Settings& settings) {
  ctx->saved_data.emplace("settings", settings);
}

template <class Settings>
Settings kept(AutogradContext* ctx) {
  return ctx->saved_data.at("settings").template to<Settings>();
}

Tensor or_undefined(const OptionalTensor& t) { return t.value_or(Tensor()); }

OptionalTensor or_none(const Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

OptionalType type_of(const OptionalTensor& t) { return t ? OptionalType(t->scalar_type()) : std::nullopt; }

bool requires_grad(const OptionalTensor& t) { return t && t->requires_grad(); }

bool requires_grad(const Tensor& t) { return t.requires_grad(); }

bool requires_grad(TensorList tensors) {
  for (const Tensor& t : tensors) {
    if (t.requires_grad()) return true;
  }
  return false;
}

// Whether a call with these tensors will have derivatives; if not, it costs no more than its kernel.
template <class... Tensors>
bool is_differentiated(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (requires_grad(tensors) || ...);
}

}  // namespace
}  // namespace ggdr
