// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// CUDA kernels of upfirdn2d: one for all cases, and two for filters of 4x4 taps at up 1 or 2 and down 1 or 2, of
// which one is for channels_last and one for contiguous images.

#include "cuda_launch.h"
#include "upfirdn2d.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <type_traits>

namespace ggdr {
namespace {

// A filter in memory: tap[y][x] of correlation, however it is stored.
template <class A>
struct Filter {
  const A* data;  // [height, width]
  int height, width;
  bool flip;  // stored for correlation; else turned around

  __device__ __forceinline__ A tap(int y, int x) const {
    return flip ? data[y * width + x] : data[(height - 1 - y) * width + width - 1 - x];
  }
};

// Images as they lie in memory.
struct Strides {
  int64_t n, c, y, x;
};

// One value of the result a thread.
template <class In, class Out, class A = acc_t<In>>
__global__ void __launch_bounds__(kThreads)
    general_kernel(const In* __restrict__ x, Strides in, Filter<A> f, A gain, Axis row, Axis column, int64_t channels,
                   bool channels_last, Out* __restrict__ out, int64_t numel, bool small) {
  for (int64_t i = thread_index(); i < numel; i += num_threads()) {
    // i counts in the order of memory: n, c, y, x or n, y, x, c.
    int64_t n, c, oy, ox, rest = i;
    const auto split = [&](int64_t size) {
      const int64_t quotient = divide(rest, size, small), remainder = rest - quotient * size;
      rest = quotient;
      return remainder;
    };
    if (channels_last) {
      c = split(channels), ox = split(column.out), oy = split(row.out), n = rest;
    } else {
      ox = split(column.out), oy = split(row.out), c = split(channels), n = rest;
    }
    const In* image = x + n * in.n + c * in.c;
    const int64_t first_y = row.first(oy), first_x = column.first(ox);
    A sum = 0;
    for (int ky = row.phase(oy), j = 0; ky < row.taps; ky += row.up, ++j) {
      const int64_t iy = first_y + j;
      if (iy < 0 || iy >= row.in) continue;
      for (int kx = column.phase(ox), k = 0; kx < column.taps; kx += column.up, ++k) {
        const int64_t ix = first_x + k;
        if (0 <= ix && ix < column.in) sum += f.tap(ky, kx) * static_cast<A>(image[iy * in.y + ix * in.x]);
      }
    }
    out[i] = static_cast<Out>(sum * gain);
  }
}

// The kernels for 4x4 taps make kSpan neighbouring values of the result at once. If the first one starts at a sample,
// tap j up - s down of value s meets sample j of those that they need together.
constexpr int kSpan = 4;

template <int up, int down>
constexpr int kSamples = ((kSpan - 1) * down + 3) / up + 1;

// The filter times gain; it is 16 bytes aligned.
__device__ __forceinline__ void read_taps(const Filter<float>& f, float gain, float (&taps)[4][4]) {
  float stored[16];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Pack<float> pack = reinterpret_cast<const Pack<float>*>(f.data)[i];
    for (int k = 0; k < 4; ++k) stored[i * 4 + k] = pack.values[k];
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) taps[i / 4][i % 4] = (f.flip ? stored[i] : stored[15 - i]) * gain;
}

// kSpan values along a row for a pack of channels a thread; the first column starts at a sample.
template <class T, int up, int down>
__global__ void __launch_bounds__(kThreads)
    channels_last_kernel(const T* __restrict__ x, Strides in, Filter<float> f, float gain, Axis row, Axis column,
                         int packs, T* __restrict__ out, int64_t numel, bool small) {
  constexpr int num = kPack<T>;
  float taps[4][4];
  read_taps(f, gain, taps);
  const int64_t spans = ceil_div(column.out, kSpan);
  for (int64_t i = thread_index(); i < numel; i += num_threads()) {
    // i counts n, oy, spans of ox, packs of channels.
    const int64_t span = divide(i, packs, small), line = divide(span, spans, small), n = divide(line, row.out, small);
    const int64_t c = (i - span * packs) * num, ox = (span - line * spans) * kSpan, oy = line - n * row.out;
    const int64_t first_y = row.first(oy), first_x = column.first(ox);
    const bool odd = row.phase(oy) == 1;
    float sums[kSpan][num] = {};
#pragma unroll
    for (int t = 0; t < 4 / up; ++t) {
      const int64_t iy = first_y + t;
      if (iy < 0 || iy >= row.in) continue;
      const T* pixels = x + n * in.n + iy * in.y + c;
#pragma unroll
      for (int j = 0; j < kSamples<up, down>; ++j) {
        const int64_t ix = first_x + j;
        if (ix < 0 || ix >= column.in) continue;
        const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(pixels + ix * in.x);
#pragma unroll
        for (int s = 0; s < kSpan; ++s) {
          const int k = j * up - s * down;
          if (k < 0 || k >= 4) continue;
          const float tap = up == 1 ? taps[t][k] : odd ? taps[(2 * t + 1) % 4][k] : taps[2 * t % 4][k];
          for (int v = 0; v < num; ++v) sums[s][v] += tap * static_cast<float>(pack.values[v]);
        }
      }
    }
#pragma unroll
    for (int s = 0; s < kSpan; ++s) {
      if (ox + s >= column.out) break;
      Pack<T> pack;
      for (int v = 0; v < num; ++v) pack.values[v] = static_cast<T>(sums[s][v]);
      *reinterpret_cast<Pack<T>*>(out + (line * column.out + ox + s) * packs * num + c) = pack;
    }
  }
}

// kTile x kTile values of the result a block, from samples in shared memory; kSpan values along a column a thread.
// The first row and column start at samples.
constexpr int kTile = 32;

template <class T, int up, int down>
__global__ void __launch_bounds__(kThreads)
    contiguous_kernel(const T* __restrict__ x, Strides in, Filter<float> f, float gain, Axis row, Axis column,
                      int64_t channels, T* __restrict__ out, int64_t tiles) {
  constexpr int size = ((kTile - 1) * down + 3) / up + 1;
  __shared__ float samples[size][size];
  const int tx = threadIdx.x % kTile, ty = threadIdx.x / kTile * kSpan;

  // This thread's column: the first of its samples, and the taps that meet them.
  const int first = (tx * down + up - 1) / up;
  float taps[4][4], own[4][4 / up];
  read_taps(f, gain, taps);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    for (int t = 0; t < 4 / up; ++t) own[k][t] = up == 2 && tx % 2 ? taps[k][(t * up + 1) % 4] : taps[k][t * up];
  }

  const int64_t tiles_x = ceil_div(column.out, kTile), tiles_y = ceil_div(row.out, kTile);
  for (int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {
    const int64_t plane = i / (tiles_x * tiles_y), n = plane / channels;
    const int64_t oy = i / tiles_x % tiles_y * kTile, ox = i % tiles_x * kTile;
    const T* image = x + n * in.n + (plane - n * channels) * in.c;
    const int64_t first_y = row.first(oy), first_x = column.first(ox);
    for (int k = threadIdx.x; k < size * size; k += kThreads) {
      const int64_t iy = first_y + k / size, ix = first_x + k % size;
      const bool inside = 0 <= iy && iy < row.in && 0 <= ix && ix < column.in;
      samples[k / size][k % size] = inside ? static_cast<float>(image[iy * in.y + ix * in.x]) : 0.0f;
    }
    __syncthreads();
    float sums[kSpan] = {};
#pragma unroll
    for (int j = 0; j < kSamples<up, down>; ++j) {
      const float* line = samples[ty * down / up + j] + first;
#pragma unroll
      for (int s = 0; s < kSpan; ++s) {
        const int k = j * up - s * down;
        if (k < 0 || k >= 4) continue;
        for (int t = 0; t < 4 / up; ++t) sums[s] += own[k][t] * line[t];
      }
    }
#pragma unroll
    for (int s = 0; s < kSpan; ++s) {
      if (oy + ty + s >= row.out || ox + tx >= column.out) break;
      out[(plane * row.out + oy + ty + s) * column.out + ox + tx] = static_cast<T>(sums[s]);
    }
    __syncthreads();
  }
}

Strides strides_of(const at::Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

template <class In, class Out>
void launch_general(const Upfirdn2dCall& call, const at::Tensor& x, const Filter<acc_t<In>>& f, double gain,
                    const Axis& row, const Axis& column, const at::Tensor& out) {
  const int64_t numel = out.numel();
  if (numel == 0) return;
  general_kernel<In, Out><<<blocks_for(numel), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      x.const_data_ptr<In>(), strides_of(x), f, static_cast<acc_t<In>>(gain), row, column, x.size(1),
      call.channels_last, out.mutable_data_ptr<Out>(), numel, is_small(numel));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// A filter of 4x4 taps, if the kernels for it serve; false if not.
template <class T, int up, int down>
bool launch_4x4(const Upfirdn2dCall& call, const Filter<float>& f) {
  const Axis &row = call.row, &column = call.column;
  const Strides in = strides_of(call.x);
  const T* x = call.x.const_data_ptr<T>();
  T* out = call.out.mutable_data_ptr<T>();
  const float gain = static_cast<float>(call.gain);
  const int64_t channels = call.x.size(1);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  if (row.up != up || column.up != up || row.down != down || column.down != down || column.phase(0) != 0) return false;
  if (call.channels_last) {
    constexpr int num = kPack<T>;
    const bool packs = channels % num == 0 && in.n % num == 0 && in.y % num == 0 && in.x % num == 0;
    if (!packs || !is_aligned(x) || !is_aligned(out)) return false;
    const int64_t numel = call.out.size(0) * row.out * ceil_div(column.out, kSpan) * (channels / num);
    channels_last_kernel<T, up, down><<<blocks_for(numel), kThreads, 0, stream>>>(
        x, in, f, gain, row, column, static_cast<int>(channels / num), out, numel, is_small(numel));
  } else {
    if (row.phase(0) != 0 || std::min(row.out, column.out) < kTile / 2) return false;
    const int64_t tiles = call.out.size(0) * channels * ceil_div(row.out, kTile) * ceil_div(column.out, kTile);
    const unsigned blocks = static_cast<unsigned>(std::min<int64_t>(tiles, 1 << 20));
    contiguous_kernel<T, up, down>
        <<<blocks, kThreads, 0, stream>>>(x, in, f, gain, row, column, channels, out, tiles);
  }
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return true;
}

template <class T>
void launch(const Upfirdn2dCall& call) {
  using A = acc_t<T>;
  const Axis &row = call.row, &column = call.column;
  const at::Tensor taps = call.f.to(c10::CppTypeToScalarType<A>::value).contiguous();
  const A* data = taps.const_data_ptr<A>();
  if (taps.dim() == 2) {
    const Filter<A> f{data, row.taps, column.taps, call.flip};
    if constexpr (std::is_same_v<A, float>) {
      if (row.taps == 4 && column.taps == 4 && is_aligned(data) &&
          (launch_4x4<T, 1, 1>(call, f) || launch_4x4<T, 2, 1>(call, f) || launch_4x4<T, 1, 2>(call, f))) {
        return;
      }
    }
    return launch_general<T, T>(call, call.x, f, call.gain, row, column, call.out);
  }

  // One axis after the other.
  const Axis rows{row.in, row.in, 1, 1, 0, 1}, columns{column.out, column.out, 1, 1, 0, 1};
  const at::MemoryFormat format = call.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::Tensor half = at::empty({call.x.size(0), call.x.size(1), row.in, column.out},
                                    taps.options().memory_format(format));
  launch_general<T, A>(call, call.x, {data, 1, column.taps, call.flip}, 1.0, rows, column, half);
  launch_general<A, T>(call, half, {data, row.taps, 1, call.flip}, call.gain, row, columns, call.out);
}

at::Tensor upfirdn2d(const at::Tensor& x, const at::Tensor& f, at::IntArrayRef up, at::IntArrayRef down,
                     at::IntArrayRef padding, bool flip_filter, double gain) {
  const c10::cuda::CUDAGuard guard(x.device());
  const Upfirdn2dCall call = check_upfirdn2d(x, f, up, down, padding, flip_filter, gain);
  if (call.out.numel() > 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "upfirdn2d",
                                    [&] { launch<scalar_t>(call); });
  }
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CUDA, m) { m.impl("upfirdn2d", &upfirdn2d); }

}  // namespace ggdr
