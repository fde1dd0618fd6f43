// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// Separable filters of 4 taps on the CPU, at up 1 or 2 and down 1 or 2, for channels_last images with at least a
// register's worth of channels. Two rows of the result are made at once: going along W, sums along H of the rows
// that both need enter two windows of registers, whose sums along W are stored.

#pragma once

#include "simd.h"
#include "upfirdn2d.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

namespace ggdr {

constexpr int64_t kCached = 1 << 18;  // bytes of input that are kept in a core's cache

// What two neighbouring rows of the result are made from and of.
template <class T>
struct TwoRows {
  const T* in[6];            // rows from the first one's first on; what lies beyond the image is a row of zeros
  const float* row_taps[2];  // of each
  T* out[2];
};

// Channels [c, c + kLanes) of two rows. A pixel of the result meets num_x columns and num_y rows; the second row
// starts `shift` rows of the input below the first. `taps` are those along W: [phases, num_x].
template <int num_x, int num_y, int shift, class T>
void filter_window(const TwoRows<T>& rows, const Axis& column, const float* taps, int64_t channels, int64_t c) {
  constexpr int phases = 4 / num_x;
  const int64_t in_step = phases == 1 ? column.down : 1;
  const T* in[num_y + shift];
  vec row_taps[2][num_y], column_taps[phases][num_x], window[2][num_x] = {};
  int64_t end[phases];  // behind the columns that the next pixel of each phase meets
  for (int k = 0; k < num_y + shift; ++k) in[k] = rows.in[k] + c;
  for (int k = 0; k < 2 * num_y; ++k) row_taps[k / num_y][k % num_y] = vec{} + rows.row_taps[k / num_y][k % num_y];
  for (int p = 0; p < phases; ++p) {
    end[p] = column.first(p) + num_x;
    for (int t = 0; t < num_x; ++t) column_taps[p][t] = vec{} + taps[column.phase(p) * num_x + t];
  }
  int64_t next = column.first(0);
  T *out0 = rows.out[0] + c, *out1 = rows.out[1] + c;
  for (int64_t o = 0; o < column.out; o += phases) {
    for (int p = 0; p < phases && o + p < column.out; ++p, out0 += channels, out1 += channels) {
      for (; next < end[p]; ++next) {
        vec sum0{}, sum1{};
        if (0 <= next && next < column.in) {
          vec x[num_y + shift];
          for (int k = 0; k < num_y + shift; ++k) x[k] = load(in[k] + next * channels);
          for (int k = 0; k < num_y; ++k) {
            sum0 += x[k] * row_taps[0][k];
            sum1 += x[k + shift] * row_taps[1][k];
          }
        }
        for (int t = 0; t + 1 < num_x; ++t) window[0][t] = window[0][t + 1], window[1][t] = window[1][t + 1];
        window[0][num_x - 1] = sum0, window[1][num_x - 1] = sum1;
      }
      end[p] += in_step;
      vec sum0 = window[0][0] * column_taps[p][0], sum1 = window[1][0] * column_taps[p][0];
      for (int t = 1; t < num_x; ++t) {
        sum0 += window[0][t] * column_taps[p][t];
        sum1 += window[1][t] * column_taps[p][t];
      }
      store(out0, sum0);
      store(out1, sum1);
    }
  }
}

// All rows of images that lie `in_stride` and `out_stride` apart; `x_taps` and `y_taps` are [phases, num].
template <int num, int shift, class T>
void filter_images(const Upfirdn2dCall& call, const float* y_taps, const float* x_taps) {
  const Axis &row = call.row, &column = call.column;
  const int64_t channels = call.x.size(1), in_stride = call.x.stride(2), out_stride = column.out * channels;
  const int64_t pairs = ceil_div(row.out, 2);
  // As many channels at a time as leave the rows that are read in a cache, for the pairs to come.
  const int64_t fitting = kCached / ((num + shift) * column.in * static_cast<int64_t>(sizeof(T))) / kLanes * kLanes;
  const int64_t block = std::clamp<int64_t>(fitting, kLanes, channels), blocks = ceil_div(channels, block);
  const T* x = call.x.const_data_ptr<T>();
  T* out = call.out.mutable_data_ptr<T>();
  at::parallel_for(0, call.x.size(0) * blocks * pairs, 1, [&](int64_t begin, int64_t end) {
    const std::vector<T> zeros(column.in * channels, T(0));
    std::vector<T> unused(row.out % 2 ? out_stride : 0);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t y = task % pairs * 2, first_channel = task / pairs % blocks * block, image = task / pairs / blocks;
      TwoRows<T> rows;
      for (int k = 0; k < num + shift; ++k) {
        const int64_t i = row.first(y) + k;
        rows.in[k] = 0 <= i && i < row.in ? x + image * call.x.stride(0) + i * in_stride : zeros.data();
      }
      for (int r = 0; r < 2; ++r) {
        rows.row_taps[r] = y_taps + row.phase(y + r) * num;
        rows.out[r] = y + r < row.out ? out + (image * row.out + y + r) * out_stride : unused.data();
      }
      const int64_t last = std::min(first_channel + block, channels);
      for (int64_t c = first_channel; c < last; c += kLanes) {
        filter_window<num, num, shift>(rows, column, x_taps, channels, std::min(c, channels - kLanes));
      }
    }
  });
}

}  // namespace ggdr
