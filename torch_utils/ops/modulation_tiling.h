// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// How the CUDA kernels of modulation share out maps among blocks and threads, and move them 16 bytes at a time.

#pragma once

#include "cuda_launch.h"

#include <algorithm>

namespace ggdr {

// How maps are shared out. A pack is of neighbours in memory: channels where channels_last, else pixels. A block's
// threads stand side by side in `columns`, one for each pack of channels (else one for each channel), and in `lanes`
// along a strip of an image's pixels.
struct Tiling {
  int64_t images, channels, pixels;
  int columns, lanes;
  int64_t groups;  // of columns
  int64_t strips;  // of an image
  int64_t strip;   // pixels of one
  bool whole;      // all packs are whole, and can be moved at once
  bool small;      // see divide

  GGDR_HD int64_t blocks() const { return images * strips * groups; }
};

// Strips get longer where there are more pixels than for so many blocks, which keep a large GPU busy. A thread has no
// more than kMaxSteps packs of one, and no less than `min_steps`, if it is to pay for what a strip costs.
constexpr int64_t kMaxSteps = 64, kEnoughBlocks = 1024;

template <int num, bool channels_last>
Tiling tiling_of(const at::Tensor& x, int64_t min_steps, bool aligned) {
  Tiling tiling{x.size(0), x.size(1), x.size(2) * x.size(3)};
  const int64_t row = channels_last ? tiling.channels : tiling.pixels, packs = ceil_div(row, num);
  const int side = static_cast<int>(std::clamp<int64_t>(packs, 1, kThreads)), rest = kThreads / side;
  tiling.columns = channels_last ? side : rest;
  tiling.lanes = channels_last ? rest : side;
  tiling.groups = ceil_div(channels_last ? packs : tiling.channels, tiling.columns);
  const int64_t step = channels_last ? tiling.lanes : tiling.lanes * num, steps = ceil_div(tiling.pixels, step);
  const int64_t wanted = steps * tiling.images * tiling.groups / kEnoughBlocks;
  tiling.strips = std::max<int64_t>(1, ceil_div(steps, std::clamp(wanted, min_steps, kMaxSteps)));
  tiling.strip = ceil_div(steps, tiling.strips) * step;
  tiling.whole = aligned && row % num == 0;
  tiling.small = is_small(tiling.blocks());
  return tiling;
}

// What a thread has of a block's share: packs from channel `channel` on, of pixels first, first + step, ... < end.
template <int num, bool channels_last>
struct Share {
  int64_t image, strip, channel, first, end, step;
  int lane;

  __device__ __forceinline__ Share(const Tiling& tiling, int64_t block) {
    const int64_t row = divide(block, tiling.groups, tiling.small), group = block - row * tiling.groups;
    image = divide(row, tiling.strips, tiling.small), strip = row - image * tiling.strips;
    const int t = threadIdx.x, inner = channels_last ? tiling.columns : tiling.lanes, quotient = t / inner;
    const int remainder = t - quotient * inner, column = channels_last ? remainder : quotient;
    lane = channels_last ? quotient : remainder;
    channel = (group * tiling.columns + column) * (channels_last ? num : 1);
    step = tiling.lanes * (channels_last ? 1 : num);
    end = std::min(tiling.pixels, (strip + 1) * tiling.strip);
    first = strip * tiling.strip + lane * (channels_last ? 1 : num);
    if (lane >= tiling.lanes || column >= tiling.columns || channel >= tiling.channels) first = end, lane = kThreads;
  }

  // Where a pack starts in memory.
  __device__ __forceinline__ int64_t at(const Tiling& tiling, int64_t pixel) const {
    return channels_last ? (image * tiling.pixels + pixel) * tiling.channels + channel
                         : (image * tiling.channels + channel) * tiling.pixels + pixel;
  }

  // Values of it that there are, if it may not be whole.
  __device__ __forceinline__ int count(const Tiling& tiling, int64_t pixel) const {
    return static_cast<int>(std::min<int64_t>(num, channels_last ? tiling.channels - channel : end - pixel));
  }

  // Those of a value for each channel that belong to its packs.
  template <class A>
  __device__ __forceinline__ void by_channel(const Tiling& tiling, const A* data, A (&values)[num]) const {
#pragma unroll
    for (int k = 0; k < num; ++k) {
      const int64_t own = channels_last ? channel + k : channel;
      values[k] = own < tiling.channels ? data[own] : A(0);
    }
  }
};

// A pack in the type of arithmetic; zeros beyond the values that there are.
template <class T, int num, class A>
__device__ __forceinline__ void read(const T* x, int count, bool whole, A (&values)[num]) {
  constexpr int size = kPack<T>;
  static_assert(num % size == 0);
#pragma unroll
  for (int i = 0; i < num; i += size) {
    Pack<T> pack{};
    if (whole) {
      pack = *reinterpret_cast<const Pack<T>*>(x + i);
    } else {
#pragma unroll
      for (int k = 0; k < size; ++k) {
        if (i + k < count) pack.values[k] = x[i + k];
      }
    }
#pragma unroll
    for (int k = 0; k < size; ++k) values[i + k] = static_cast<A>(pack.values[k]);
  }
}

template <class T, int num, class A>
__device__ __forceinline__ void write(T* out, int count, bool whole, const A (&values)[num]) {
  Pack<T> pack;
#pragma unroll
  for (int k = 0; k < num; ++k) pack.values[k] = static_cast<T>(values[k]);
  if (whole) {
    *reinterpret_cast<Pack<T>*>(out) = pack;
  } else {
#pragma unroll
    for (int k = 0; k < num; ++k) {
      if (k < count) out[k] = pack.values[k];
    }
  }
}

// A value for each pixel, or none.
template <class A>
struct Noise {
  const A* data;  // null for none
  int64_t step;   // from image to image
  bool whole;     // packs of pixels can be read at once

  // Those of a pack.
  template <int num, bool channels_last>
  __device__ __forceinline__ void get(int64_t image, int64_t pixel, int count, A (&values)[num]) const {
#pragma unroll
    for (int k = 0; k < num; ++k) values[k] = A(0);
    if (data == nullptr) return;
    const A* own = data + image * step + pixel;
    if constexpr (channels_last) {
      const A value = *own;
#pragma unroll
      for (int k = 0; k < num; ++k) values[k] = value;
    } else {
      read(own, count, whole, values);
    }
  }
};

}  // namespace ggdr
