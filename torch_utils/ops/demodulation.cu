// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// CUDA kernels of demodulation. The order of the sums depends on the shapes alone.

#include "cuda_launch.h"
#include "demodulation.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <type_traits>

namespace ggdr {
namespace {

constexpr int kColumns = 32, kLanes = kThreads / kColumns;  // of threads, where a block adds up along one axis
constexpr double kEps = 1e-8;

struct Shape {
  int64_t images, filters, channels, taps;
  bool channels_last;  // taps are further apart in memory than channels

  GGDR_HD int64_t row() const { return channels * taps; }
  GGDR_HD int64_t at(int64_t channel, int64_t tap) const {
    return channels_last ? tap * channels + channel : channel * taps + tap;
  }
};

// `join` of the values of all threads, for each of them.
template <class A, class Join>
__device__ __forceinline__ A join_threads(A (&partial)[kThreads], A value, Join join) {
  const int t = threadIdx.x;
  partial[t] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (t < half) partial[t] = join(partial[t], partial[t + half]);
    __syncthreads();
  }
  value = partial[0];
  __syncthreads();
  return value;
}

// A block has a filter, for c and q, or an image, for m and s'.
template <class A>
__global__ void __launch_bounds__(kThreads)
    scales_kernel(Shape shape, bool normalize, const A* __restrict__ w, const A* __restrict__ s, A* __restrict__ c,
                  A* __restrict__ q, A* __restrict__ m, A* __restrict__ scaled) {
  __shared__ A partial[kThreads];
  const int t = threadIdx.x;
  for (int64_t block = blockIdx.x; block < shape.filters + shape.images; block += gridDim.x) {
    A scale = 1;
    if (block < shape.filters) {
      const A* row = w + block * shape.row();
      if (normalize) {
        A sum = 0;
        for (int64_t i = t; i < shape.row(); i += kThreads) sum += row[i] * row[i];
        scale = A(1) / std::sqrt(join_threads(partial, sum, [](A a, A b) { return a + b; }));
      }
      for (int64_t i = t; i < shape.channels; i += kThreads) {
        A sum = 0;
        for (int64_t k = 0; k < shape.taps; ++k) {
          const A value = scale * row[shape.at(i, k)];
          sum += value * value;
        }
        q[block * shape.channels + i] = sum;
      }
      if (t == 0) c[block] = scale;
    } else {
      const int64_t image = block - shape.filters, first = image * shape.channels;
      if (normalize) {
        const auto larger = [](A a, A b) { return a > b || a != a ? a : b; };  // NaN is the largest
        A largest = 0;
        for (int64_t i = t; i < shape.channels; i += kThreads) largest = larger(std::abs(s[first + i]), largest);
        scale = A(1) / join_threads(partial, largest, larger);
      }
      for (int64_t i = t; i < shape.channels; i += kThreads) scaled[first + i] = scale * s[first + i];
      if (t == 0) m[image] = scale;
    }
  }
}

// What becomes of a sum over channels, for coefficient i.
template <class A>
struct Coefficients {
  A* d;

  GGDR_HD void operator()(int64_t i, A sum) const { d[i] = A(1) / std::sqrt(sum + A(kEps)); }
};

template <class A>
struct CoefficientGrads {
  const A *along, *d;
  A *of_along, *of_d;

  GGDR_HD void operator()(int64_t i, A sum) const {
    const A slope = d[i] * d[i] * A(2) * sum;
    of_along[i] = A(-0.5) * slope * d[i];
    of_d[i] = A(-1.5) * slope * along[i];
  }
};

// Sums of a b q. A block has a filter and kLanes images; its columns share out the channels.
template <class A, class Finish>
__global__ void __launch_bounds__(kThreads)
    coefficients_kernel(Shape shape, const A* __restrict__ a, const A* __restrict__ b, const A* __restrict__ q,
                        Finish finish) {
  __shared__ A partial[kLanes][kColumns];
  const int column = threadIdx.x % kColumns, lane = threadIdx.x / kColumns;
  const int64_t groups = ceil_div(shape.images, kLanes);
  for (int64_t block = blockIdx.x; block < shape.filters * groups; block += gridDim.x) {
    const int64_t filter = block / groups, image = (block - filter * groups) * kLanes + lane;
    A sum = 0;
    if (image < shape.images) {
      for (int64_t i = column; i < shape.channels; i += kColumns) {
        const int64_t style = image * shape.channels + i;
        sum += a[style] * b[style] * q[filter * shape.channels + i];
      }
    }
    partial[lane][column] = sum;
    __syncthreads();
    if (column == 0 && image < shape.images) {
      for (int i = 1; i < kColumns; ++i) sum += partial[lane][i];
      finish(image * shape.filters + filter, sum);
    }
    __syncthreads();
  }
}

// t of demodulation.h.
template <class A>
__device__ __forceinline__ A sum_grad(A gd, A d) {
  return A(-0.5) * gd * d * d * d;
}

// A block has an image and kColumns channels; its lanes share out the filters. Null `gs` are zeros.
template <class A>
__global__ void __launch_bounds__(kThreads)
    styles_grad_kernel(Shape shape, const A* __restrict__ gs, const A* __restrict__ gd, const A* __restrict__ d,
                       const A* __restrict__ s, const A* __restrict__ q, const A* __restrict__ m,
                       A* __restrict__ out) {
  __shared__ A partial[kLanes][kColumns];
  const int column = threadIdx.x % kColumns, lane = threadIdx.x / kColumns;
  const int64_t groups = ceil_div(shape.channels, kColumns);
  for (int64_t block = blockIdx.x; block < shape.images * groups; block += gridDim.x) {
    const int64_t image = block / groups, channel = (block - image * groups) * kColumns + column;
    A sum = 0;
    if (channel < shape.channels) {
#pragma unroll 4
      for (int64_t filter = lane; filter < shape.filters; filter += kLanes) {
        const int64_t i = image * shape.filters + filter;
        sum += sum_grad(gd[i], d[i]) * q[filter * shape.channels + channel];
      }
    }
    partial[lane][column] = sum;
    __syncthreads();
    if (lane == 0 && channel < shape.channels) {
      for (int i = 1; i < kLanes; ++i) sum += partial[i][column];
      const int64_t i = image * shape.channels + channel;
      out[i] = m[image] * ((gs == nullptr ? A(0) : gs[i]) + A(2) * s[i] * sum);
    }
    __syncthreads();
  }
}

// Weights times gain c^2 and the sum of t a b over images. A block has a filter and kThreads channels.
template <class A>
__global__ void __launch_bounds__(kThreads)
    weight_grad_kernel(Shape shape, A gain, const A* __restrict__ gd, const A* __restrict__ d,
                       const A* __restrict__ w, const A* __restrict__ a, const A* __restrict__ b,
                       const A* __restrict__ c, A* __restrict__ out) {
  __shared__ A factors[kThreads];
  const int t = threadIdx.x;
  const int64_t groups = ceil_div(shape.channels, kThreads);
  for (int64_t block = blockIdx.x; block < shape.filters * groups; block += gridDim.x) {
    const int64_t filter = block / groups, first = (block - filter * groups) * kThreads;
    const int64_t num = std::min<int64_t>(kThreads, shape.channels - first);
    if (t < num) {
      A sum = 0;
      for (int64_t image = 0; image < shape.images; ++image) {
        const int64_t i = image * shape.filters + filter;
        const int64_t style = image * shape.channels + first + t;
        sum += sum_grad(gd[i], d[i]) * a[style] * b[style];
      }
      factors[t] = gain * c[filter] * c[filter] * sum;
    }
    __syncthreads();
    for (int64_t e = t; e < num * shape.taps; e += kThreads) {  // in the order of memory
      const int64_t inner = shape.channels_last ? num : shape.taps, outer = e / inner, rest = e - outer * inner;
      const int64_t channel = shape.channels_last ? rest : outer, tap = shape.channels_last ? outer : rest;
      const int64_t i = filter * shape.row() + shape.at(first + channel, tap);
      out[i] = factors[channel] * w[i];
    }
    __syncthreads();
  }
}

// `row` values are of one filter, in the order of memory. Null `scales` are ones.
template <class From, class To, class A>
__global__ void __launch_bounds__(kThreads) scaled_kernel(int64_t num, int64_t row, bool small,
                                                          const From* __restrict__ w, const A* __restrict__ scales,
                                                          A gain, To* __restrict__ out) {
  for (int64_t i = thread_index(); i < num; i += num_threads()) {
    const A scale = scales == nullptr ? gain : gain * scales[divide(i, row, small)];
    out[i] = static_cast<To>(scale * static_cast<A>(w[i]));
  }
}

unsigned grid_for(int64_t blocks) { return static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 20)); }

Shape shape_of(const at::Tensor& w, int64_t images) {
  return {images, w.size(0), w.size(1), w.size(2) * w.size(3), is_channels_last(w)};
}

template <class A, class Finish>
void launch_coefficients(Shape shape, const at::Tensor& a, const at::Tensor& b, const at::Tensor& q, Finish finish) {
  const int64_t blocks = shape.filters * ceil_div(shape.images, kLanes);
  if (blocks == 0) return;
  coefficients_kernel<A, Finish><<<grid_for(blocks), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      shape, a.const_data_ptr<A>(), b.const_data_ptr<A>(), q.const_data_ptr<A>(), finish);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// Undefined `gs` are zeros.
template <class A>
void launch_styles_grad(Shape shape, const at::Tensor& gs, const at::Tensor& gd, const at::Tensor& d,
                        const at::Tensor& s, const at::Tensor& q, const at::Tensor& m, const at::Tensor& out) {
  const int64_t blocks = shape.images * ceil_div(shape.channels, kColumns);
  if (blocks == 0) return;
  styles_grad_kernel<A><<<grid_for(blocks), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      shape, gs.defined() ? gs.const_data_ptr<A>() : nullptr, gd.const_data_ptr<A>(), d.const_data_ptr<A>(),
      s.const_data_ptr<A>(), q.const_data_ptr<A>(), m.const_data_ptr<A>(), out.mutable_data_ptr<A>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class A>
void launch_weight_grad(Shape shape, double gain, const at::Tensor& gd, const at::Tensor& d, const at::Tensor& w,
                        const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const at::Tensor& out) {
  const int64_t blocks = shape.filters * ceil_div(shape.channels, kThreads);
  if (blocks == 0) return;
  weight_grad_kernel<A><<<grid_for(blocks), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      shape, static_cast<A>(gain), gd.const_data_ptr<A>(), d.const_data_ptr<A>(), w.const_data_ptr<A>(),
      a.const_data_ptr<A>(), b.const_data_ptr<A>(), c.const_data_ptr<A>(), out.mutable_data_ptr<A>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> demodulation(const at::Tensor& weight,
                                                                                    const at::Tensor& styles,
                                                                                    bool normalize) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor w = check_weights(weight), s = check_styles(styles, w);
  const Shape shape = shape_of(w, s.size(0));
  const at::Tensor scaled = at::empty(s.sizes(), s.options()), d = at::empty({shape.images, shape.filters}, s.options());
  const at::Tensor q = at::empty({shape.filters, shape.channels}, s.options());
  const at::Tensor c = at::empty({shape.filters}, s.options()), m = at::empty({shape.images}, s.options());
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "demodulation", [&] {
    using A = scalar_t;
    const int64_t rows = shape.filters + shape.images;
    if (rows > 0) {
      scales_kernel<A><<<grid_for(rows), kThreads, 0, stream>>>(
          shape, normalize, w.const_data_ptr<A>(), s.const_data_ptr<A>(), c.mutable_data_ptr<A>(),
          q.mutable_data_ptr<A>(), m.mutable_data_ptr<A>(), scaled.mutable_data_ptr<A>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
    launch_coefficients<A>(shape, scaled, scaled, q, Coefficients<A>{d.mutable_data_ptr<A>()});
  });
  return {scaled, d, q, c, m};
}

at::Tensor demodulation_styles_grad(const at::Tensor& gs, const at::Tensor& gd, const at::Tensor& d,
                                    const at::Tensor& weight, const at::Tensor& scaled, const at::Tensor& q,
                                    const at::Tensor& c, const at::Tensor& m) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const Shape shape = shape_of(weight, scaled.size(0));
  const at::Tensor s = check_styles(scaled, weight), grads = check_beside("gs", gs, s.sizes(), weight);
  const int64_t coefficients[] = {shape.images, shape.filters}, sums[] = {shape.filters, shape.channels};
  const at::Tensor along = check_beside("gd", gd, coefficients, weight), of = check_beside("d", d, coefficients, weight);
  const at::Tensor squares = check_beside("q", q, sums, weight), scale = check_beside("m", m, {shape.images}, weight);
  const at::Tensor out = at::empty(s.sizes(), s.options());
  AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "demodulation_styles_grad", [&] {
    launch_styles_grad<scalar_t>(shape, grads, along, of, s, squares, scale, out);
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> demodulation_styles_grad_backward(
    const at::Tensor& grad, const at::Tensor& gd, const at::Tensor& d, const at::Tensor& weight,
    const at::Tensor& scaled, const at::Tensor& q, const at::Tensor& c, const at::Tensor& m) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const at::Tensor w = check_weights(weight), s = check_styles(scaled, w);
  const Shape shape = shape_of(w, s.size(0));
  const int64_t coefficients[] = {shape.images, shape.filters}, sums[] = {shape.filters, shape.channels};
  const at::Tensor unscaled = check_beside("h", grad, s.sizes(), w);
  const at::Tensor along = check_beside("gd", gd, coefficients, w), of = check_beside("d", d, coefficients, w);
  const at::Tensor squares = check_beside("q", q, sums, w), weight_scale = check_beside("c", c, {shape.filters}, w);
  const at::Tensor style_scale = check_beside("m", m, {shape.images}, w);
  const at::Tensor h = unscaled * style_scale.unsqueeze(1), of_s = at::empty_like(s), of_w = at::empty_like(w);
  const at::Tensor of_along = at::empty_like(along), of_d = at::empty_like(of);
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "demodulation_styles_grad_backward", [&] {
    using A = scalar_t;
    launch_coefficients<A>(shape, h, s, squares,
                           CoefficientGrads<A>{along.const_data_ptr<A>(), of.const_data_ptr<A>(),
                                               of_along.mutable_data_ptr<A>(), of_d.mutable_data_ptr<A>()});
    launch_styles_grad<A>(shape, at::Tensor(), along, of, unscaled, squares, style_scale, of_s);
    launch_weight_grad<A>(shape, 4, along, of, w, h, s, weight_scale, of_w);
  });
  return {h, of_along, of_d, of_w, of_s};
}

at::Tensor demodulation_weight_grad(const at::Tensor& gd, const at::Tensor& d, const at::Tensor& weight,
                                    const at::Tensor& scaled, const at::Tensor& c) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const at::Tensor w = check_weights(weight), s = check_styles(scaled, w);
  const Shape shape = shape_of(w, s.size(0));
  const int64_t coefficients[] = {shape.images, shape.filters};
  const at::Tensor along = check_beside("gd", gd, coefficients, w), of = check_beside("d", d, coefficients, w);
  const at::Tensor scale = check_beside("c", c, {shape.filters}, w), out = at::empty_like(w);
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "demodulation_weight_grad", [&] {
    launch_weight_grad<scalar_t>(shape, 2, along, of, w, s, s, scale, out);
  });
  return out;
}

template <class From, class To>
void launch_scaled(const at::Tensor& w, const at::Tensor& scales, double gain, const at::Tensor& out) {
  using A = std::common_type_t<acc_t<From>, acc_t<To>>;
  const int64_t num = w.numel(), row = num / w.size(0);
  scaled_kernel<From, To, A><<<blocks_for(num), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      num, row, is_small(num), w.const_data_ptr<From>(), scales.defined() ? scales.const_data_ptr<A>() : nullptr,
      static_cast<A>(gain), out.mutable_data_ptr<To>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

at::Tensor scaled_weight(const at::Tensor& weight, const std::optional<at::Tensor>& scales, double gain,
                         at::ScalarType type) {
  const c10::cuda::CUDAGuard guard(weight.device());
  TORCH_CHECK_VALUE(weight.dim() == 4, "scaled_weight: w must be [Cout, Cin, k, k], got ", weight.sizes());
  const at::Tensor w = is_channels_last(weight) ? weight : weight.contiguous();
  const at::Tensor out = at::empty_like(w, w.options().dtype(type));
  if (out.numel() == 0) return out;
  const at::ScalarType accurate = acc_scalar_type(type == at::kDouble ? type : w.scalar_type());
  at::Tensor factors;
  if (scales.has_value()) {
    TORCH_CHECK_VALUE(scales->sizes() == w.sizes().slice(0, 1) && scales->scalar_type() == accurate,
                      "scaled_weight: scales must be [", w.size(0), "] ", accurate, ", got ", scales->sizes(), " ",
                      scales->scalar_type());
    factors = scales->contiguous();
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, w.scalar_type(), "scaled_weight", [&] {
    using From = scalar_t;
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, type, "scaled_weight", [&] {
      launch_scaled<From, scalar_t>(w, factors, gain, out);
    });
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CUDA, m) {
  m.impl("demodulation", &demodulation);
  m.impl("demodulation_styles_grad", &demodulation_styles_grad);
  m.impl("demodulation_styles_grad_backward", &demodulation_styles_grad_backward);
  m.impl("demodulation_weight_grad", &demodulation_weight_grad);
  m.impl("scaled_weight", &scaled_weight);
}

}  // namespace ggdr
