// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// CUDA kernels of modulate and demodulated_act: one pass over the maps, 16 bytes at a time. The backward kernel sums
// the gradients by strips of pixels on the way, and a second, small one adds up the strips. The order of the sums
// depends on shape, type and layout alone.

#include "modulation.h"
#include "modulation_tiling.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

namespace ggdr {
namespace {

// What is added to the scaled maps of demodulated_act: for each channel and each pixel. Null for none.
template <class A>
struct Shift {
  const A* b;
  Noise<A> noise;
  const A* strength;  // one value
};

// modulate and demodulated_act (`act`), and their tangents. These have the terms hx d and x hd, and are scaled by f'.
template <class T, bool channels_last, bool act, bool tangent, class A = acc_t<T>>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(Tiling tiling, LeakyReLU<A> f, const T* __restrict__ y, const T* __restrict__ x,
                 const A* __restrict__ d, const T* __restrict__ hx, const A* __restrict__ hd, Shift<A> shift,
                 T* __restrict__ out) {
  constexpr int num = kPack<T>;
  const A strength = shift.strength == nullptr ? A(0) : *shift.strength;
  for (int64_t block = blockIdx.x; block < tiling.blocks(); block += gridDim.x) {
    const Share<num, channels_last> share(tiling, block);
    const int64_t of_image = share.image * tiling.channels;
    A scale[num], other[num], bias[num] = {};
    share.by_channel(tiling, d + of_image, scale);
    if constexpr (tangent) share.by_channel(tiling, hd + of_image, other);
    if (act && shift.b != nullptr) share.by_channel(tiling, shift.b, bias);
#pragma unroll 2
    for (int64_t pixel = share.first; pixel < share.end; pixel += share.step) {
      const int64_t i = share.at(tiling, pixel);
      const int count = share.count(tiling, pixel);
      A values[num];
      read(tangent ? hx + i : x + i, count, tiling.whole, values);
#pragma unroll
      for (int k = 0; k < num; ++k) values[k] *= scale[k];
      if constexpr (tangent) {
        A more[num];
        read(x + i, count, tiling.whole, more);
#pragma unroll
        for (int k = 0; k < num; ++k) values[k] += more[k] * other[k];
      }
      if constexpr (act) {
        A noise[num], results[num];
        shift.noise.template get<num, channels_last>(share.image, pixel, count, noise);
        if constexpr (tangent) read(y + i, count, tiling.whole, results);
#pragma unroll
        for (int k = 0; k < num; ++k) {
          values[k] += bias[k] + noise[k] * strength;
          values[k] = tangent ? values[k] * f.derivative(results[k]) : f.forward(values[k]);
        }
      }
      write(out + i, count, tiling.whole, values);
    }
  }
}

// Packs of a thread at least, whose sums are one more pass over memory.
constexpr int64_t kSumSteps = 8;

// A block's sums are joined into so many first.
constexpr int kParts = 16;

// `num` values, `step` apart.
template <class A>
__device__ __forceinline__ A sum_of(const A* values, int num, int step) {
  A sum = 0;
  for (int i = 0; i < num; ++i) sum += values[i * step];
  return sum;
}

// The gradient in x, and the sums of a block: in `sums` [images, strips, 1 or 2, channels] of g f' x, and of g f' where
// `act`; in `noise_sums` [blocks] of g f' noise.
template <class T, bool channels_last, bool act, class A = acc_t<T>>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Tiling tiling, LeakyReLU<A> f, const T* __restrict__ g, const T* __restrict__ y,
                    const T* __restrict__ x, const A* __restrict__ d, Noise<A> noise, T* __restrict__ gx,
                    A* __restrict__ sums, A* __restrict__ noise_sums) {
  constexpr int num = kPack<T>, slots = channels_last ? num : 1, kinds = act ? 2 : 1, rows = kinds * slots;
  __shared__ A partial[rows + 1][kThreads];
  const int t = threadIdx.x, next = channels_last ? tiling.columns : 1;  // threads to the next lane
  for (int64_t block = blockIdx.x; block < tiling.blocks(); block += gridDim.x) {
    const Share<num, channels_last> share(tiling, block);
    A scale[num], own[kinds][slots] = {}, noise_sum = 0;
    share.by_channel(tiling, d + share.image * tiling.channels, scale);
    for (int64_t pixel = share.first; pixel < share.end; pixel += share.step) {
      const int64_t i = share.at(tiling, pixel);
      const int count = share.count(tiling, pixel);
      A grads[num], values[num];
      read(g + i, count, tiling.whole, grads);
      read(x + i, count, tiling.whole, values);
      if constexpr (act) {
        A results[num], noises[num];
        read(y + i, count, tiling.whole, results);
        noise.template get<num, channels_last>(share.image, pixel, count, noises);
#pragma unroll
        for (int k = 0; k < num; ++k) {
          grads[k] *= f.derivative(results[k]);
          own[kinds - 1][channels_last ? k : 0] += grads[k];
          noise_sum += grads[k] * noises[k];
        }
      }
#pragma unroll
      for (int k = 0; k < num; ++k) {
        own[0][channels_last ? k : 0] += grads[k] * values[k];
        grads[k] *= scale[k];
      }
      write(gx + i, count, tiling.whole, grads);
    }

    // Along the lanes, and of the noise among all threads: into kParts sums, then these.
#pragma unroll
    for (int k = 0; k < rows; ++k) partial[k][t] = own[k / slots][k % slots];
    partial[rows][t] = noise_sum;
    __syncthreads();
    if (share.lane < kParts) {
      const int num_lanes = (tiling.lanes - share.lane + kParts - 1) / kParts;
#pragma unroll
      for (int k = 0; k < rows; ++k) partial[k][t] = sum_of(&partial[k][t], num_lanes, kParts * next);
    }
    if (act && t < kParts) partial[rows][t] = sum_of(&partial[rows][t], kThreads / kParts, kParts);
    __syncthreads();
    if (share.lane == 0) {
      const int num_parts = tiling.lanes < kParts ? tiling.lanes : kParts;
      A* out = sums + (share.image * tiling.strips + share.strip) * kinds * tiling.channels + share.channel;
#pragma unroll
      for (int k = 0; k < rows; ++k) {
        if (share.channel + k % slots >= tiling.channels) continue;
        out[k / slots * tiling.channels + k % slots] = sum_of(&partial[k][t], num_parts, next);
      }
    }
    if (act && t == 0) noise_sums[block] = sum_of(partial[rows], kParts, 1);
    __syncthreads();
  }
}

// Matrices one after the other in memory, the rows of each of which are added up.
constexpr int kColumns = 8;  // that a block adds up

template <class A>
struct Matrices {
  const A* data;
  int64_t num, rows, row_step, columns;
  A* sums;  // [num, columns]

  GGDR_HD int64_t blocks() const { return num * ceil_div(columns, kColumns); }
};

template <class A>
struct RowSums {
  Matrices<A> of[3];

  GGDR_HD int64_t blocks() const { return of[0].blocks() + of[1].blocks() + of[2].blocks(); }
};

template <class A>
__global__ void __launch_bounds__(kThreads) add_rows_kernel(RowSums<A> all) {
  __shared__ A partial[kThreads];
  const int t = threadIdx.x;
  for (int64_t block = blockIdx.x; block < all.blocks(); block += gridDim.x) {
    int which = 0;
    int64_t part = block;
    while (part >= all.of[which].blocks()) part -= all.of[which++].blocks();
    const Matrices<A>& matrices = all.of[which];
    const int64_t parts = ceil_div(matrices.columns, kColumns), i = part / parts;
    const int64_t column = (part - i * parts) * kColumns + t % kColumns;
    A sum = 0;
    if (column < matrices.columns) {
      const A* data = matrices.data + i * matrices.rows * matrices.row_step + column;
#pragma unroll 4
      for (int64_t row = t / kColumns; row < matrices.rows; row += kThreads / kColumns) {
        sum += data[row * matrices.row_step];
      }
    }
    partial[t] = sum;
    __syncthreads();
    if (t < kColumns && column < matrices.columns) {
      matrices.sums[i * matrices.columns + column] = sum_of(&partial[t], kThreads / kColumns, kColumns);
    }
    __syncthreads();
  }
}

// The maps of a call in one layout: that of `like`, if it is channels_last, else contiguous.
class Layout {
 public:
  explicit Layout(const at::Tensor& like)
      : channels_last(!like.is_contiguous() && like.is_contiguous(at::MemoryFormat::ChannelsLast)) {}

  at::Tensor of(const at::Tensor& x) const { return x.contiguous(format()); }
  at::Tensor empty(const at::Tensor& like) const {
    return at::empty(like.sizes(), like.options().memory_format(format()));
  }

  const bool channels_last;

 private:
  at::MemoryFormat format() const {
    return channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  }
};

unsigned grid_for(int64_t blocks) { return static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 20)); }

template <class T>
const T* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}

template <class T, class A = acc_t<T>>
Noise<A> noise_of(const at::Tensor& noise, int64_t pixels) {
  if (!noise.defined()) return {nullptr, 0, true};
  const A* data = noise.const_data_ptr<A>();
  return {data, noise_step(noise), is_aligned(data) && pixels % kPack<T> == 0};
}

// The tensors of modulate and demodulated_act, or of their tangents: then `b` and `strength` are those along which it
// is. Undefined where there is none; `y`, `hx` and `hd` belong to the tangents.
struct Scaled {
  at::Tensor x, d, noise, strength, b, y, hx, hd;
};

template <class T, bool channels_last, bool act, bool tangent>
void launch_scale(const Scaled& in, const LeakyReLU<acc_t<T>>& f, const at::Tensor& out) {
  using A = acc_t<T>;
  const T *x = data_of<T>(in.x), *y = data_of<T>(in.y), *hx = data_of<T>(in.hx);
  T* to = out.mutable_data_ptr<T>();
  const bool aligned = is_aligned(x) && is_aligned(y) && is_aligned(hx) && is_aligned(to);
  const Tiling tiling = tiling_of<kPack<T>, channels_last>(out, /*min_steps=*/1, aligned);
  const Shift<A> shift{data_of<A>(in.b), noise_of<T>(in.noise, tiling.pixels), data_of<A>(in.strength)};
  scale_kernel<T, channels_last, act, tangent>
      <<<grid_for(tiling.blocks()), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
          tiling, f, y, x, data_of<A>(in.d), hx, data_of<A>(in.hd), shift, to);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The result, in the layout of x.
template <bool act, bool tangent>
at::Tensor scale(Scaled in, double slope, double gain, double clamp) {
  const Layout layout(in.x);
  const at::Tensor out = layout.empty(in.x);
  if (out.numel() == 0) return out;
  for (at::Tensor* maps : {&in.x, &in.y, &in.hx}) {
    if (maps->defined()) *maps = layout.of(*maps);
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, out.scalar_type(), "modulation", [&] {
    const auto f = leaky_relu<scalar_t>(slope, gain, clamp);
    layout.channels_last ? launch_scale<scalar_t, true, act, tangent>(in, f, out)
                         : launch_scale<scalar_t, false, act, tangent>(in, f, out);
  });
  return out;
}

struct Gradients {
  at::Tensor x, d, b, strength;  // the last two for demodulated_act only
};

template <class T, bool channels_last, bool act>
void launch_backward(const at::Tensor& g, const at::Tensor& y, const at::Tensor& x, const at::Tensor& d,
                     const at::Tensor& noise, const LeakyReLU<acc_t<T>>& f, const Gradients& out) {
  using A = acc_t<T>;
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const T *grads = data_of<T>(g), *results = data_of<T>(y), *source = data_of<T>(x);
  T* to = out.x.mutable_data_ptr<T>();
  const bool aligned = is_aligned(grads) && is_aligned(results) && is_aligned(source) && is_aligned(to);
  const Tiling tiling = tiling_of<kPack<T>, channels_last>(out.x, kSumSteps, aligned);
  const int64_t kinds = act ? 2 : 1, strips = tiling.strips, channels = tiling.channels, row = kinds * channels;
  const int64_t num_sums = tiling.images * strips * row;
  const at::Tensor sums = at::empty({num_sums + (act ? tiling.blocks() : 0)}, d.options());
  A* partial = sums.mutable_data_ptr<A>();
  if (tiling.blocks() > 0) {
    backward_kernel<T, channels_last, act><<<grid_for(tiling.blocks()), kThreads, 0, stream>>>(
        tiling, f, grads, results, source, data_of<A>(d), noise_of<T>(noise, tiling.pixels), to, partial,
        partial + num_sums);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  RowSums<A> all{};
  all.of[0] = {partial, tiling.images, strips, row, channels, out.d.mutable_data_ptr<A>()};
  if (act) {
    all.of[1] = {partial + channels, 1, tiling.images * strips, row, channels, out.b.mutable_data_ptr<A>()};
    all.of[2] = {partial + num_sums, 1, tiling.blocks(), 1, 1, out.strength.mutable_data_ptr<A>()};
  }
  if (all.blocks() == 0) return;
  add_rows_kernel<A><<<grid_for(all.blocks()), kThreads, 0, stream>>>(all);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// All gradients; that in x in its layout.
template <bool act>
Gradients backward(const at::Tensor& g, const at::Tensor& y, const at::Tensor& x, const at::Tensor& d,
                   const at::Tensor& noise, double slope, double gain, double clamp) {
  const Layout layout(x);
  Gradients out{layout.empty(x), at::empty_like(d), {}, {}};
  if (act) out.b = at::empty({x.size(1)}, d.options()), out.strength = at::empty({}, d.options());
  const at::Tensor grads = layout.of(g), source = layout.of(x), results = act ? layout.of(y) : y;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "modulation_backward", [&] {
    const auto f = leaky_relu<scalar_t>(slope, gain, clamp);
    layout.channels_last ? launch_backward<scalar_t, true, act>(grads, results, source, d, noise, f, out)
                         : launch_backward<scalar_t, false, act>(grads, results, source, d, noise, f, out);
  });
  return out;
}

constexpr double kNoSlope = 1, kNoGain = 1, kNoClamp = -1;  // of modulate, which has no activation

at::Tensor modulate(const at::Tensor& x, const at::Tensor& s) {
  const c10::cuda::CUDAGuard guard(x.device());
  check_modulated(x);
  return scale<false, false>({x, check_by_image("s", s, x)}, kNoSlope, kNoGain, kNoClamp);
}

std::tuple<at::Tensor, at::Tensor> modulate_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& s) {
  const c10::cuda::CUDAGuard guard(x.device());
  check_modulated(x);
  check_like("g", g, x);
  const Gradients out = backward<false>(g, {}, x, check_by_image("s", s, x), {}, kNoSlope, kNoGain, kNoClamp);
  return {out.x, out.d};
}

at::Tensor modulate_tangent(const at::Tensor& x, const at::Tensor& s, const at::Tensor& hx, const at::Tensor& hs) {
  const c10::cuda::CUDAGuard guard(x.device());
  check_modulated(x);
  check_like("hx", hx, x);
  return scale<false, true>({x, check_by_image("s", s, x), {}, {}, {}, {}, hx, check_by_image("hs", hs, x)}, kNoSlope,
                            kNoGain, kNoClamp);
}

at::Tensor demodulated_act(const at::Tensor& x, const at::Tensor& d, const std::optional<at::Tensor>& noise,
                           const at::Tensor& strength, const at::Tensor& b, double slope, double gain, double clamp) {
  const c10::cuda::CUDAGuard guard(x.device());
  check_modulated(x);
  return scale<true, false>({x, check_by_image("d", d, x), check_noise(noise, x),
                             check_values("strength", strength, {}, x), check_values("b", b, {x.size(1)}, x)},
                            slope, gain, clamp);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> demodulated_act_backward(
    const at::Tensor& g, const at::Tensor& y, const at::Tensor& x, const at::Tensor& d,
    const std::optional<at::Tensor>& noise, double slope, double gain, double clamp) {
  const c10::cuda::CUDAGuard guard(x.device());
  check_modulated(x);
  check_like("g", g, x);
  check_like("y", y, x);
  const Gradients out =
      backward<true>(g, y, x, check_by_image("d", d, x), check_noise(noise, x), slope, gain, clamp);
  return {out.x, out.d, out.b, out.strength};
}

at::Tensor demodulated_act_tangent(const at::Tensor& y, const at::Tensor& x, const at::Tensor& d,
                                   const std::optional<at::Tensor>& noise, const at::Tensor& hx, const at::Tensor& hd,
                                   const std::optional<at::Tensor>& hstrength, const std::optional<at::Tensor>& hb,
                                   double slope, double gain, double clamp) {
  const c10::cuda::CUDAGuard guard(x.device());
  check_modulated(x);
  check_like("y", y, x);
  check_like("hx", hx, x);
  const at::Tensor noise_along = hstrength.has_value() ? check_noise(noise, x) : at::Tensor();
  return scale<true, true>({x, check_by_image("d", d, x), noise_along, check_optional("hstrength", hstrength, {}, x),
                            check_optional("hb", hb, {x.size(1)}, x), y, hx, check_by_image("hd", hd, x)},
                           slope, gain, clamp);
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CUDA, m) {
  m.impl("modulate", &modulate);
  m.impl("modulate_backward", &modulate_backward);
  m.impl("modulate_tangent", &modulate_tangent);
  m.impl("demodulated_act", &demodulated_act);
  m.impl("demodulated_act_backward", &demodulated_act_backward);
  m.impl("demodulated_act_tangent", &demodulated_act_tangent);
}

}  // namespace ggdr
