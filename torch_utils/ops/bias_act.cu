// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// CUDA kernels of bias_act: one pass over memory, 16 bytes at a time. The sums by channel are torch's: their order,
// and so their rounding, is always the same.

#include "bias_act.h"
#include "cuda_launch.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <torch/library.h>

#include <tuple>

namespace ggdr {
namespace {

// A value for each channel, or zeros.
template <class A>
struct ByChannel {
  const A* data;  // null for zeros
  Channels channels;
  bool small;

  // Those of the `num` elements of memory from i on; i is a multiple of num.
  template <int num>
  __device__ __forceinline__ void get(int64_t i, A (&values)[num]) const {
    const int64_t count = channels.count, inner = channels.inner;
#pragma unroll
    for (int k = 0; k < num; ++k) values[k] = A(0);
    if (data == nullptr) return;
    const bool apart = inner % num != 0 && (inner > 1 || count % num != 0);  // they are not within one row
    const int64_t row = divide(i, inner, small), channel = row - divide(row, count, small) * count;
#pragma unroll
    for (int k = 0; k < num; ++k) {
      if (!apart) {
        values[k] = data[inner == 1 ? channel + k : channel];
      } else {
        const int64_t own = divide(i + k, inner, small);
        values[k] = data[own - divide(own, count, small) * count];
      }
    }
  }
};

// Elements [i, i + num) in the type of arithmetic, as far as they exist.
template <class T, int num, class A>
__device__ __forceinline__ void read(const T* x, int64_t i, int64_t numel, bool aligned, A (&values)[num]) {
  Pack<T> pack{};
  if (aligned && i + num <= numel) {
    pack = *reinterpret_cast<const Pack<T>*>(x + i);
  } else {
#pragma unroll
    for (int k = 0; k < num; ++k) {
      if (i + k < numel) pack.values[k] = x[i + k];
    }
  }
#pragma unroll
  for (int k = 0; k < num; ++k) values[k] = static_cast<A>(pack.values[k]);
}

template <class T, int num, class A>
__device__ __forceinline__ void write(T* out, int64_t i, int64_t numel, bool aligned, const A (&values)[num]) {
  Pack<T> pack;
#pragma unroll
  for (int k = 0; k < num; ++k) pack.values[k] = static_cast<T>(values[k]);
  if (aligned && i + num <= numel) {
    *reinterpret_cast<Pack<T>*>(out + i) = pack;
  } else {
#pragma unroll
    for (int k = 0; k < num; ++k) {
      if (i + k < numel) out[i + k] = pack.values[k];
    }
  }
}

// x and out may be the same memory.
template <class T, bool smooth, class A = acc_t<T>>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(BiasAct<A> op, const T* x, ByChannel<A> b, T* out, int64_t numel, bool aligned) {
  constexpr int num = kPack<T>;
  for (int64_t i = thread_index() * num; i < numel; i += num_threads() * num) {
    A values[num], bias[num];
    read(x, i, numel, aligned, values);
    b.get(i, bias);
#pragma unroll
    for (int k = 0; k < num; ++k) values[k] = op.template forward<smooth>(values[k], bias[k]);
    write(out, i, numel, aligned, values);
  }
}

// g and out may be the same memory. Without `ref` it is not needed.
template <class T, bool smooth, class A = acc_t<T>>
__global__ void __launch_bounds__(kThreads)
    derivative_kernel(BiasAct<A> op, const T* g, ByChannel<A> gb, const T* ref, ByChannel<A> b, T* out, int64_t numel,
                      bool aligned) {
  constexpr int num = kPack<T>;
  for (int64_t i = thread_index() * num; i < numel; i += num_threads() * num) {
    A values[num], refs[num] = {}, grad_bias[num], bias[num];
    read(g, i, numel, aligned, values);
    if (ref != nullptr) read(ref, i, numel, aligned, refs);
    gb.get(i, grad_bias);
    b.get(i, bias);
#pragma unroll
    for (int k = 0; k < num; ++k) values[k] = op.template derivative<smooth>(values[k], grad_bias[k], refs[k], bias[k]);
    write(out, i, numel, aligned, values);
  }
}

// A bias in the type of arithmetic; the tensor holds the memory.
template <class A>
std::pair<at::Tensor, ByChannel<A>> by_channel(const BiasActCall& call, const std::optional<at::Tensor>& b) {
  if (!b.has_value()) return {at::Tensor(), {nullptr, call.channels, true}};
  at::Tensor values = b->to(c10::CppTypeToScalarType<A>::value).contiguous();
  return {values, {values.template const_data_ptr<A>(), call.channels, is_small(call.out.numel())}};
}

template <class T, bool smooth>
void launch_forward(const BiasActCall& call, const std::optional<at::Tensor>& b) {
  const T* x = call.x.const_data_ptr<T>();
  T* out = call.out.mutable_data_ptr<T>();
  const int64_t numel = call.out.numel();
  const auto bias = by_channel<acc_t<T>>(call, b);
  forward_kernel<T, smooth><<<blocks_for(ceil_div(numel, kPack<T>)), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      call.constants<T>(), x, bias.second, out, numel, is_aligned(x) && is_aligned(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class T, bool smooth>
void launch_derivative(const BiasActCall& call, const std::optional<at::Tensor>& b,
                       const std::optional<at::Tensor>& gb) {
  const T* g = call.x.const_data_ptr<T>();
  const T* ref = call.ref.defined() ? call.ref.const_data_ptr<T>() : nullptr;
  T* out = call.out.mutable_data_ptr<T>();
  const int64_t numel = call.out.numel();
  const auto bias = by_channel<acc_t<T>>(call, b), grad_bias = by_channel<acc_t<T>>(call, gb);
  derivative_kernel<T, smooth>
      <<<blocks_for(ceil_div(numel, kPack<T>)), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
          call.constants<T>(), g, grad_bias.second, ref, bias.second, out, numel,
          is_aligned(g) && is_aligned(ref) && is_aligned(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

at::Tensor bias_act(const at::Tensor& x, const std::optional<at::Tensor>& b, int64_t dim, c10::string_view act,
                    double alpha, double gain, std::optional<double> clamp) {
  const c10::cuda::CUDAGuard guard(x.device());
  const BiasActCall call = check_bias_act(x, b, dim, act, alpha, gain, clamp);
  if (call.out.numel() > 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "bias_act", [&] {
      is_smooth(call.act) ? launch_forward<scalar_t, true>(call, b) : launch_forward<scalar_t, false>(call, b);
    });
  }
  return call.out;
}

std::tuple<at::Tensor, at::Tensor> bias_act_grad(const at::Tensor& g, const std::optional<at::Tensor>& gb,
                                                 const std::optional<at::Tensor>& ref,
                                                 const std::optional<at::Tensor>& b, int64_t order, int64_t dim,
                                                 c10::string_view act, double alpha, double gain,
                                                 std::optional<double> clamp, std::optional<at::ScalarType> sum_dtype) {
  const c10::cuda::CUDAGuard guard(g.device());
  const BiasActCall call =
      check_bias_act_grad(g, gb, ref, b, order, dim, act, alpha, gain, clamp, sum_dtype.has_value());
  const int64_t numel = call.out.numel();
  if (numel > 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, g.scalar_type(), "bias_act_grad", [&] {
      is_smooth(call.act) ? launch_derivative<scalar_t, true>(call, b, gb)
                          : launch_derivative<scalar_t, false>(call, b, gb);
    });
  }
  if (!sum_dtype.has_value()) return {call.out, at::empty({0}, g.options())};
  const auto [count, inner] = call.channels;
  const int64_t outer = numel > 0 ? numel / (count * inner) : 0;
  const at::Tensor by_channel = at::as_strided(call.out, {outer, count, inner}, {count * inner, inner, 1});
  constexpr int64_t dims[] = {0, 2};
  return {call.out, by_channel.sum(dims, /*keepdim=*/false, *sum_dtype)};
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CUDA, m) {
  m.impl("bias_act", &bias_act);
  m.impl("bias_act_grad", &bias_act_grad);
}

}  // namespace ggdr
