// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// Winograd's minimal filtering for 3 taps, in one dimension: 4 results of a convolution from few products.
//
//   results = output(input(pixels) * weight(taps))
//
// and, as the convolution is bilinear, its gradients are products of the transposes of the three. Every function takes
// elements that lie `step` apart. In two dimensions they run along columns, then along rows.
//
// Sources: Lavin & Gray 2016, arXiv:1509.09308; points for small rounding errors: Barabasz et al., arXiv:1803.10986.

#pragma once

#include "../simd.h"

namespace ggdr {

constexpr int kOut = 4;    // results of a tile
constexpr int kSlots = 6;  // different right sides, products of which with the left sides make the results

// Stride 1, F(4, 3): results y[i] = sum of w[k] d[i + k] from 6 products instead of 12.
// Points 0, +-3/4, +-3/2 and infinity.
struct Stride1 {
  static constexpr int kStride = 1, kIn = 6, kPoints = 6;
  static constexpr int slot(int point) { return point; }

  static constexpr float a = 0.75f, b = 1.5f, a2 = a * a, b2 = b * b, sum = a2 + b2, product = a2 * b2;
  static constexpr float w0 = 1 / product, wa = 1 / (2 * a2 * (a2 - b2)), wb = 1 / (2 * b2 * (b2 - a2));

  static void input(const vec* d, vec* out, int step) {
    const vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const vec even_a = d4 - b2 * d2, odd_a = a * (d3 - b2 * d1);
    const vec even_b = d4 - a2 * d2, odd_b = b * (d3 - a2 * d1);
    out[0] = product * d0 - sum * d2 + d4;
    out[step] = even_a + odd_a;
    out[2 * step] = even_a - odd_a;
    out[3 * step] = even_b + odd_b;
    out[4 * step] = even_b - odd_b;
    out[5 * step] = product * d1 - sum * d3 + d5;
  }
  static void output(const vec* m, vec* out, int step) {
    const vec sum_a = m[step] + m[2 * step], diff_a = m[step] - m[2 * step];
    const vec sum_b = m[3 * step] + m[4 * step], diff_b = m[3 * step] - m[4 * step];
    out[0] = m[0] + sum_a + sum_b;
    out[step] = a * diff_a + b * diff_b;
    out[2 * step] = a2 * sum_a + b2 * sum_b;
    out[3 * step] = (a * a2) * diff_a + (b * b2) * diff_b + m[5 * step];
  }
  static void output_adjoint(const vec* g, vec* out, int step) {
    const vec g0 = g[0], g1 = g[step], g2 = g[2 * step], g3 = g[3 * step];
    const vec even_a = g0 + a2 * g2, odd_a = a * g1 + (a * a2) * g3;
    const vec even_b = g0 + b2 * g2, odd_b = b * g1 + (b * b2) * g3;
    out[0] = g0;
    out[step] = even_a + odd_a;
    out[2 * step] = even_a - odd_a;
    out[3 * step] = even_b + odd_b;
    out[4 * step] = even_b - odd_b;
    out[5 * step] = g3;
  }
  static void weight(const vec* w, vec* out, int step) {
    const vec even_a = wa * w[0] + (wa * a2) * w[2 * step], odd_a = (wa * a) * w[step];
    const vec even_b = wb * w[0] + (wb * b2) * w[2 * step], odd_b = (wb * b) * w[step];
    out[0] = w0 * w[0];
    out[step] = even_a + odd_a;
    out[2 * step] = even_a - odd_a;
    out[3 * step] = even_b + odd_b;
    out[4 * step] = even_b - odd_b;
    out[5 * step] = w[2 * step];
  }
  static void weight_adjoint(const vec* u, vec* out, int step) {
    const vec sum_a = u[step] + u[2 * step], diff_a = u[step] - u[2 * step];
    const vec sum_b = u[3 * step] + u[4 * step], diff_b = u[3 * step] - u[4 * step];
    out[0] = w0 * u[0] + wa * sum_a + wb * sum_b;
    out[step] = (wa * a) * diff_a + (wb * b) * diff_b;
    out[2 * step] = (wa * a2) * sum_a + (wb * b2) * sum_b + u[5 * step];
  }
};

// Stride 2: y[i] = w[0] d[2i] + w[1] d[2i + 1] + w[2] d[2i + 2] from 9 products instead of 12. Even pixels meet taps
// 0 and 2, which is F(4, 2) with points +-1/2, +-5/4 and infinity; odd pixels meet tap 1, as they are.
struct Stride2 {
  static constexpr int kStride = 2, kIn = 9, kPoints = 9;
  static constexpr int slot(int point) { return point < 5 ? point : 5; }

  static constexpr float a = 0.5f, b = 1.25f, a2 = a * a, b2 = b * b, sum = a2 + b2, product = a2 * b2;
  static constexpr float wa = 1 / (2 * a * (a2 - b2)), wb = 1 / (2 * b * (b2 - a2));

  static void input(const vec* d, vec* out, int step) {
    const vec e0 = d[0], e1 = d[2 * step], e2 = d[4 * step], e3 = d[6 * step], e4 = d[8 * step];
    const vec odd_a = e3 - b2 * e1, even_a = a * (e2 - b2 * e0);
    const vec odd_b = e3 - a2 * e1, even_b = b * (e2 - a2 * e0);
    out[0] = odd_a + even_a;
    out[step] = odd_a - even_a;
    out[2 * step] = odd_b + even_b;
    out[3 * step] = odd_b - even_b;
    out[4 * step] = product * e0 - sum * e2 + e4;
    for (int i = 0; i < kOut; i++) out[(5 + i) * step] = d[(2 * i + 1) * step];
  }
  static void input_adjoint(const vec* m, vec* out, int step) {
    const vec sum_a = m[0] + m[step], diff_a = a * (m[0] - m[step]);
    const vec sum_b = m[2 * step] + m[3 * step], diff_b = b * (m[2 * step] - m[3 * step]), last = m[4 * step];
    out[0] = product * last - b2 * diff_a - a2 * diff_b;
    out[2 * step] = -b2 * sum_a - a2 * sum_b;
    out[4 * step] = diff_a + diff_b - sum * last;
    out[6 * step] = sum_a + sum_b;
    out[8 * step] = last;
    for (int i = 0; i < kOut; i++) out[(2 * i + 1) * step] = m[(5 + i) * step];
  }
  static void output(const vec* m, vec* out, int step) {
    const vec sum_a = m[0] + m[step], diff_a = m[0] - m[step];
    const vec sum_b = m[2 * step] + m[3 * step], diff_b = m[2 * step] - m[3 * step];
    out[0] = sum_a + sum_b + m[5 * step];
    out[step] = a * diff_a + b * diff_b + m[6 * step];
    out[2 * step] = a2 * sum_a + b2 * sum_b + m[7 * step];
    out[3 * step] = (a * a2) * diff_a + (b * b2) * diff_b + m[4 * step] + m[8 * step];
  }
  static void output_adjoint(const vec* g, vec* out, int step) {
    const vec g0 = g[0], g1 = g[step], g2 = g[2 * step], g3 = g[3 * step];
    const vec even_a = g0 + a2 * g2, odd_a = a * g1 + (a * a2) * g3;
    const vec even_b = g0 + b2 * g2, odd_b = b * g1 + (b * b2) * g3;
    out[0] = even_a + odd_a;
    out[step] = even_a - odd_a;
    out[2 * step] = even_b + odd_b;
    out[3 * step] = even_b - odd_b;
    out[4 * step] = g3;
    for (int i = 0; i < kOut; i++) out[(5 + i) * step] = g[i * step];
  }
  // Of the six slots: points 5 to 8 share the last one.
  static void weight(const vec* w, vec* out, int step) {
    out[0] = wa * w[0] + (wa * a) * w[2 * step];
    out[step] = (wa * a) * w[2 * step] - wa * w[0];
    out[2 * step] = wb * w[0] + (wb * b) * w[2 * step];
    out[3 * step] = (wb * b) * w[2 * step] - wb * w[0];
    out[4 * step] = w[2 * step];
    out[5 * step] = w[step];
  }
  static void weight_adjoint(const vec* u, vec* out, int step) {
    out[0] = wa * (u[0] - u[step]) + wb * (u[2 * step] - u[3 * step]);
    out[step] = u[5 * step];
    out[2 * step] = (wa * a) * (u[0] + u[step]) + (wb * b) * (u[2 * step] + u[3 * step]) + u[4 * step];
  }
};

// A 1-D transform of `from` to `to` elements, along the columns and then along the rows of a tile.
template <int from, int to, class Transform>
inline void transform_2d(const vec* in, vec* out, const Transform& transform) {
  vec half[to * from];
  for (int j = 0; j < from; j++) transform(in + j, half + j, from);
  for (int i = 0; i < to; i++) transform(half + i * from, out + i * to, 1);
}

}  // namespace ggdr
