// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// CPU kernels of bias_act: one pass over memory, which also sums the gradient of the bias.

#include "bias_act.h"
#include "simd.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <vector>

namespace ggdr {
namespace {

// Work is cut into pieces of fixed size, so that sums do not depend on the number of threads.
constexpr int64_t kPiece = 1 << 14;  // elements
constexpr int64_t kPeriod = 256;     // elements that a repeated bias has at least

// The channels' values in the type of arithmetic, repeated to `size`; zeros for none.
template <class A>
std::vector<A> values_of(const std::optional<at::Tensor>& b, size_t size) {
  std::vector<A> values(size);
  if (b.has_value()) {
    const at::Tensor source = b->to(c10::CppTypeToScalarType<A>::value).contiguous();
    const A* data = source.template const_data_ptr<A>();
    for (size_t i = 0; i < size; ++i) values[i] = data[i % source.numel()];
  }
  return values;
}

// Element i, or the elements from i on.
template <class V, class T>
V read(const T* x, int64_t i) {
  if constexpr (std::is_same_v<V, vec>) {
    return load(x + i);
  } else {
    return static_cast<V>(x[i]);
  }
}

// The types of which vectors are loaded and stored.
template <class T>
constexpr bool kVectorised = std::is_same_v<T, float> || std::is_same_v<T, BFloat16>;

template <class T>
struct Forward {
  BiasAct<acc_t<T>> op;
  const T* x;
  T* out;

  template <bool smooth, class V>
  V get(int64_t i, V b, V) const {
    return op.template forward<smooth>(read<V>(x, i), b);
  }
};

template <class T>
struct Derivative {
  BiasAct<acc_t<T>> op;
  const T *g, *ref;
  T* out;

  template <bool smooth, class V>
  V get(int64_t i, V b, V gb) const {
    return op.template derivative<smooth>(read<V>(g, i), gb, read<V>(ref, i), b);
  }
};

// A row of memory within a channel; returns its sum. The constants are copied, so that they stay in registers.
template <bool sum, class T, template <class> class Element, class A = acc_t<T>>
double map_row(const Element<T> element, int64_t begin, int64_t end, A b, A gb) {
  double total = 0;
  int64_t i = begin;
  const bool smooth = is_smooth(element.op.act);
  if constexpr (kVectorised<T>) {
    vec totals{};
    for (; !smooth && i + kLanes <= end; i += kLanes) {
      const vec result = element.template get<false>(i, vec{} + b, vec{} + gb);
      store(element.out + i, result);
      if (sum) totals += result;
    }
    for (int lane = 0; lane < (sum ? kLanes : 0); ++lane) total += totals[lane];
  }
  for (; i < end; ++i) {
    const A result = smooth ? element.template get<true>(i, b, gb) : element.template get<false>(i, b, gb);
    element.out[i] = result;
    if (sum) total += result;
  }
  return total;
}

// A row of memory with b and gb for each element; adds to their sums.
template <bool sum, class T, template <class> class Element, class A = acc_t<T>>
void map_row(const Element<T> element, int64_t begin, int64_t end, const A* b, const A* gb, A* totals) {
  int64_t i = begin;
  const bool smooth = is_smooth(element.op.act);
  if constexpr (kVectorised<T>) {
    for (; !smooth && i + kLanes <= end; i += kLanes, b += kLanes, gb += kLanes) {
      const vec result = element.template get<false>(i, load(b), load(gb));
      store(element.out + i, result);
      if (sum) {
        store(totals, load(totals) + result);
        totals += kLanes;
      }
    }
  }
  for (; i < end; ++i, ++b, ++gb) {
    const A result = smooth ? element.template get<true>(i, *b, *gb) : element.template get<false>(i, *b, *gb);
    element.out[i] = result;
    if (sum) *totals++ += result;
  }
}

// All elements, with the values of b and gb for their channels; returns the sums by channel if `sum`.
template <bool sum, class T, template <class> class Element, class A = acc_t<T>>
std::vector<double> map(const BiasActCall& call, const std::optional<at::Tensor>& b,
                        const std::optional<at::Tensor>& gb, const Element<T>& element) {
  const int64_t channels = call.channels.count, inner = call.channels.inner;
  const int64_t numel = call.out.numel();
  std::vector<double> sums(sum ? channels : 0);
  if (numel == 0) return sums;

  // Channels that are constant along `inner` elements of memory.
  if (inner > 1) {
    const std::vector<A> bias = values_of<A>(b, channels), grad_bias = values_of<A>(gb, channels);
    const int64_t pieces = ceil_div(inner, kPiece), tasks = numel / inner * pieces;
    std::vector<double> partial(sum ? tasks : 0);
    at::parallel_for(0, tasks, std::max<int64_t>(1, 2 * kPiece / inner), [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t row = task / pieces, channel = row % channels, start = task % pieces * kPiece;
        const int64_t begin = row * inner + start, end = begin + std::min(kPiece, inner - start);
        const double total = map_row<sum>(element, begin, end, bias[channel], grad_bias[channel]);
        if (sum) partial[task] = total;
      }
    });
    for (size_t task = 0; task < partial.size(); ++task) sums[task / pieces % channels] += partial[task];
    return sums;
  }

  // Channels that follow each other in memory. Few are repeated, to rows of whole vectors that are worth a loop.
  const int64_t step = channels * (kLanes / std::gcd<int64_t>(channels, kLanes));
  const int64_t length = step * ceil_div(kPeriod, step);
  const std::vector<A> bias = values_of<A>(b, length), grad_bias = values_of<A>(gb, length);
  const int64_t size = length * std::max<int64_t>(8, kPiece / length), tasks = ceil_div(numel, size);
  std::vector<A> partial(sum ? tasks * length : 0);
  at::parallel_for(0, tasks, 2, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      A* totals = partial.data() + (sum ? task * length : 0);
      for (int64_t row = task * size; row < std::min(numel, (task + 1) * size); row += length) {
        const int64_t end = std::min(numel, row + length);
        map_row<sum>(element, row, end, bias.data(), grad_bias.data(), totals);
      }
    }
  });
  for (size_t i = 0; i < partial.size(); ++i) sums[i % length % channels] += partial[i];
  return sums;
}

at::Tensor bias_act(const at::Tensor& x, const std::optional<at::Tensor>& b, int64_t dim, c10::string_view act,
                    double alpha, double gain, std::optional<double> clamp) {
  const BiasActCall call = check_bias_act(x, b, dim, act, alpha, gain, clamp);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "bias_act", [&] {
    const Forward<scalar_t> element{call.constants<scalar_t>(), call.x.const_data_ptr<scalar_t>(),
                                    call.out.mutable_data_ptr<scalar_t>()};
    map<false>(call, b, std::nullopt, element);
  });
  return call.out;
}

std::tuple<at::Tensor, at::Tensor> bias_act_grad(const at::Tensor& g, const std::optional<at::Tensor>& gb,
                                                 const std::optional<at::Tensor>& ref,
                                                 const std::optional<at::Tensor>& b, int64_t order, int64_t dim,
                                                 c10::string_view act, double alpha, double gain,
                                                 std::optional<double> clamp, std::optional<at::ScalarType> sum_dtype) {
  const BiasActCall call =
      check_bias_act_grad(g, gb, ref, b, order, dim, act, alpha, gain, clamp, sum_dtype.has_value());
  std::vector<double> sums;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, g.scalar_type(), "bias_act_grad", [&] {
    const scalar_t* in = call.x.const_data_ptr<scalar_t>();
    const scalar_t* from = call.ref.defined() ? call.ref.const_data_ptr<scalar_t>() : in;  // any number will do
    const Derivative<scalar_t> element{call.constants<scalar_t>(), in, from, call.out.mutable_data_ptr<scalar_t>()};
    sums = sum_dtype ? map<true>(call, b, gb, element) : map<false>(call, b, gb, element);
  });
  const at::Tensor sum = at::empty({static_cast<int64_t>(sums.size())}, at::kDouble);
  std::copy(sums.begin(), sums.end(), sum.mutable_data_ptr<double>());
  return {call.out, sum.to(sum_dtype.value_or(g.scalar_type()))};
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CPU, m) {
  m.impl("bias_act", &bias_act);
  m.impl("bias_act_grad", &bias_act_grad);
}

}  // namespace ggdr
