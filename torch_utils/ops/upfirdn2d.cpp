// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// CPU kernel of upfirdn2d. All formats are rows of W pixels of C values; a contiguous tensor has N * C images with
// one value a pixel. A row of the result is made in two steps from rows of the input: sums of whole rows along H
// into a buffer with zeros at its ends, then sums of the buffer with itself, shifted by pixels, along W. Both are
// the same weighted sum of a few arrays. Up- and downsampling split the pixels of a row into phases.

#include "upfirdn2d.h"
#include "upfirdn2d_window.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

namespace ggdr {
namespace {

constexpr int64_t kBuffer = 1 << 13;  // values of a tile's row; four rows of input and its buffers fit in a cache
constexpr int kMaxSources = 6;        // arrays that are summed at once

// Rows and columns of taps, in the order in which they meet samples, times gain.
struct Taps {
  std::vector<double> row;     // [fh]
  std::vector<double> column;  // [1, fw], or [fh, fw] if the filter is no outer product: then row is ones
  bool separable;
};

Taps taps_of(const Upfirdn2dCall& call) {
  const at::Tensor f = call.f.to(at::kDouble).contiguous();
  const double* data = f.const_data_ptr<double>();
  const int64_t fh = call.row.taps, fw = call.column.taps;
  Taps taps{std::vector<double>(fh, 1.0), {}, true};
  if (f.dim() == 1) {
    taps.row.assign(data, data + fh);
    taps.column.assign(data, data + fw);
  } else {
    // An outer product is the product of any row and column, divided by the element that they share.
    const auto smaller = [](double a, double b) { return std::abs(a) < std::abs(b); };
    const double* pivot = std::max_element(data, data + fh * fw, smaller);
    const int64_t i0 = (pivot - data) / fw, j0 = (pivot - data) % fw;
    const double eps = call.f.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                           : std::numeric_limits<float>::epsilon();
    for (int64_t i = 0; i < fh * fw; ++i) {
      const double product = data[i0 * fw + i % fw] * data[i / fw * fw + j0];
      taps.separable &= std::abs(data[i] * *pivot - product) <= 8 * eps * *pivot * *pivot;
    }
    if (taps.separable) {
      for (int64_t i = 0; i < fh; ++i) taps.row[i] = data[i * fw + j0];
      taps.column.assign(data + i0 * fw, data + i0 * fw + fw);
      for (double& tap : taps.column) tap = *pivot == 0 ? 0 : tap / *pivot;
    } else {
      taps.column.assign(data, data + fh * fw);
    }
  }
  if (!call.flip) {
    std::reverse(taps.row.begin(), taps.row.end());
    std::reverse(taps.column.begin(), taps.column.end());
  }
  for (double& tap : taps.row) tap *= call.gain;
  return taps;
}

// out = sum of weight[s] source[s], or += it. `out` is none of the sources.
template <int num, bool add, class In, class Out, class A>
void weighted_sum(const In* const* source, const A* weight, Out* out, int64_t n) {
  int64_t i = 0;
  if constexpr (std::is_same_v<A, float> && !std::is_same_v<In, c10::Half> && !std::is_same_v<Out, c10::Half>) {
    const auto step = [=](int64_t i) {
      vec sum = load(source[0] + i) * weight[0];
      for (int s = 1; s < num; ++s) sum += load(source[s] + i) * weight[s];
      if constexpr (add) sum += load(out + i);
      store(out + i, sum);
    };
    for (; i + kLanes <= n; i += kLanes) step(i);
    if (!add && i > 0 && i < n) return step(n - kLanes);  // some once more: faster than one by one
  }
  for (; i < n; ++i) {
    A sum = static_cast<A>(source[0][i]) * weight[0];
    for (int s = 1; s < num; ++s) sum += static_cast<A>(source[s][i]) * weight[s];
    out[i] = add ? static_cast<A>(out[i]) + sum : sum;
  }
}

template <bool add, class In, class Out, class A>
void weighted_sum_of(int num, const In* const* source, const A* weight, Out* out, int64_t n) {
  switch (num) {
    case 1:
      return weighted_sum<1, add>(source, weight, out, n);
    case 2:
      return weighted_sum<2, add>(source, weight, out, n);
    case 3:
      return weighted_sum<3, add>(source, weight, out, n);
    case 4:
      return weighted_sum<4, add>(source, weight, out, n);
    case 5:
      return weighted_sum<5, add>(source, weight, out, n);
    default:
      return weighted_sum<6, add>(source, weight, out, n);
  }
}

// The same for any number of sources; `out` is of the type of arithmetic, or there are at most kMaxSources.
template <class In, class Out, class A>
void weighted_sum_of_any(int num, const In* const* source, const A* weight, Out* out, int64_t n, bool add) {
  if (num == 0 && !add) std::fill_n(out, n, Out(0));
  for (int done = 0; done < num; done += kMaxSources, add = true) {
    const int some = std::min(num - done, kMaxSources);
    if constexpr (std::is_same_v<Out, A>) {
      if (add) {
        weighted_sum_of<true>(some, source + done, weight + done, out, n);
        continue;
      }
    }
    weighted_sum_of<false>(some, source + done, weight + done, out, n);
  }
}

// The taps of each phase, next to each other.
template <class A>
std::vector<std::vector<A>> by_phase(const Axis& axis, const double* taps) {
  std::vector<std::vector<A>> phases(axis.up);
  for (int k = 0; k < axis.taps; ++k) phases[k % axis.up].push_back(static_cast<A>(taps[k]));
  return phases;
}

// to[i to_step] = from[i from_step] for pixels. Sizes that are known when compiling are loops without branches.
template <int64_t from_step = 0, int64_t to_step = 0, int64_t pixel = 0, class From, class To>
void copy_pixels(const From* from, int64_t from_by, To* to, int64_t to_by, int64_t num, int64_t size) {
  if constexpr (pixel == 0) {
    if (from_by == 1 && to_by == 2 && size == 1) return copy_pixels<1, 2, 1>(from, from_by, to, to_by, num, size);
    if (from_by == 2 && to_by == 1 && size == 1) return copy_pixels<2, 1, 1>(from, from_by, to, to_by, num, size);
    if (from_by == 1 && to_by == 2 && size == 3) return copy_pixels<1, 2, 3>(from, from_by, to, to_by, num, size);
    if (from_by == 2 && to_by == 1 && size == 3) return copy_pixels<2, 1, 3>(from, from_by, to, to_by, num, size);
  } else {
    from_by = from_step, to_by = to_step, size = pixel;
  }
  for (int64_t i = 0; i < num; ++i) {
    for (int64_t c = 0; c < size; ++c) to[i * to_by * size + c] = static_cast<To>(from[i * from_by * size + c]);
  }
}

// Makes rows of a tile of columns of the result; each thread has its own.
template <class T>
class RowMaker {
  using A = acc_t<T>;

 public:
  RowMaker(const Upfirdn2dCall& call, const Taps& taps, int64_t pixel)
      : row_(call.row), column_(call.column), separable_(taps.separable), pixel_(pixel) {
    const int64_t shared = std::gcd(column_.up, column_.down);
    out_step_ = column_.up / shared;
    in_step_ = column_.down / shared;
    direct_ = separable_ && out_step_ == 1 && (std::is_same_v<T, A> || column_.count(0) <= kMaxSources);
    row_taps_ = by_phase<A>(row_, taps.row.data());
    for (size_t at = 0; at < taps.column.size(); at += column_.taps) {
      column_taps_.push_back(by_phase<A>(column_, taps.column.data() + at));
    }
    rows_.resize(row_.count(0));
    for (int64_t o = 0; o < row_.out; ++o) {
      const int64_t first = row_.first(o), from = std::max<int64_t>(first, 0);
      const int phase = row_.phase(o), num = static_cast<int>(std::min(first + row_.count(phase), row_.in) - from);
      const int skipped = static_cast<int>(from - first);
      steps_.push_back({from, std::max(num, 0), phase + skipped * row_.up, row_taps_[phase].data() + skipped});
    }
  }

  // Pixels [begin, end) of the result are made from now on; begin is a multiple of out_step.
  void start_tile(int64_t begin, int64_t end) {
    const int64_t last = end - 1;
    low_ = column_.first(begin);
    width_ = std::max<int64_t>(column_.first(last) + column_.count(column_.phase(last)) - low_, 0);
    left_ = std::clamp<int64_t>(-low_, 0, width_);
    right_ = std::clamp(column_.in - low_, left_, width_);
    split_width_ = ceil_div(width_, in_step_);
    line_.assign(width_ * pixel_, A(0));
    split_.assign(in_step_ == 1 ? 0 : split_width_ * in_step_ * pixel_, A(0));
    runs_.resize(std::min(out_step_, end - begin));
    for (int64_t r = 0; r < static_cast<int64_t>(runs_.size()); ++r) {
      Run& run = runs_[r];
      run.phase = column_.phase(begin + r);
      run.length = ceil_div(end - begin - r, out_step_);
      run.sums.assign(direct_ ? 0 : run.length * pixel_, A(0));
      run.sources.resize(column_.count(run.phase));
      for (size_t t = 0; t < run.sources.size(); ++t) {
        const int64_t i = column_.first(begin + r) - low_ + t;
        run.sources[t] = in_step_ == 1 ? line_.data() + i * pixel_
                                       : split_.data() + (i % in_step_ * split_width_ + i / in_step_) * pixel_;
      }
    }
  }

  // The tile's part of row `oy`, to `out`. Rows of the image at `x` lie `stride` apart.
  void make(const T* x, int64_t stride, int64_t oy, T* out) {
    const Step& step = steps_[oy];
    x += step.from * stride;
    if (separable_ || step.num == 0) {
      sum_rows(x, stride, step.weights, step.num);
      sum_pixels(column_taps_[0], out, false);
    } else {
      for (int i = 0; i < step.num; ++i) {
        sum_rows(x + i * stride, stride, step.weights + i, 1);
        sum_pixels(column_taps_[step.tap + i * row_.up], out, i > 0);
      }
    }
    if (direct_) return;
    for (size_t r = 0; r < runs_.size(); ++r) {
      copy_pixels(runs_[r].sums.data(), 1, out + r * pixel_, out_step_, runs_[r].length, pixel_);
    }
  }

 private:
  // What a row of the result is made from: `num` rows from `from` on, which meet tap, tap + up, ...
  struct Step {
    int64_t from;
    int num, tap;
    const A* weights;
  };

  // Pixels of the result of the same phase: every out_step-th. They lie in_step apart in the input.
  struct Run {
    int phase;
    int64_t length;
    std::vector<A> sums;            // if not direct
    std::vector<const A*> sources;  // by tap
  };

  // Where the tile needs it, the weighted sum of `num` rows to line_, and its phases to split_.
  void sum_rows(const T* x, int64_t stride, const A* weights, int num) {
    for (int i = 0; i < num; ++i) rows_[i] = x + i * stride + (low_ + left_) * pixel_;
    weighted_sum_of_any(num, rows_.data(), weights, line_.data() + left_ * pixel_, (right_ - left_) * pixel_, false);
    if (in_step_ == 1) return;
    for (int64_t s = 0; s < in_step_; ++s) {
      copy_pixels(line_.data() + s * pixel_, in_step_, split_.data() + s * split_width_ * pixel_, 1,
                  ceil_div(width_ - s, in_step_), pixel_);
    }
  }

  // The weighted sums of line_ along the row, to `out` or to the runs' sums.
  void sum_pixels(const std::vector<std::vector<A>>& taps, T* out, bool add) {
    for (Run& run : runs_) {
      const int num = static_cast<int>(run.sources.size());
      const A* weights = taps[run.phase].data();
      if (direct_) {
        weighted_sum_of_any(num, run.sources.data(), weights, out, run.length * pixel_, add);
      } else {
        weighted_sum_of_any(num, run.sources.data(), weights, run.sums.data(), run.length * pixel_, add);
      }
    }
  }

  const Axis row_, column_;
  const bool separable_;
  const int64_t pixel_;                                   // values of a pixel
  int64_t out_step_, in_step_;
  bool direct_;                                           // sums need no other type or order than the result
  std::vector<std::vector<A>> row_taps_;                  // [phase][tap]
  std::vector<std::vector<std::vector<A>>> column_taps_;  // [row of the filter, or 1][phase][tap]
  int64_t low_, width_, left_, right_, split_width_;      // line_ is pixels low_ ...; not zero from left_ to right_
  std::vector<Step> steps_;                               // by row of the result
  std::vector<A> line_, split_;
  std::vector<Run> runs_;
  std::vector<const T*> rows_;
};

// Takes the case to the kernel for 4 taps if it is one; false if not.
template <class T>
bool filter_4_taps(const Upfirdn2dCall& call, const Taps& taps) {
  const Axis &row = call.row, &column = call.column;
  const bool fits = taps.separable && call.channels_last && call.x.size(1) >= kLanes && row.taps == 4 &&
                    column.taps == 4 && row.up == column.up && row.down == column.down && row.up * row.down <= 2;
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, BFloat16>) {
    if (!fits) return false;
    float y_taps[4], x_taps[4];  // [phase, tap]
    for (int k = 0; k < 4; ++k) {
      const int at = k % row.up * (4 / row.up) + k / row.up;
      y_taps[at] = static_cast<float>(taps.row[k]);
      x_taps[at] = static_cast<float>(taps.column[k]);
    }
    if (row.up == 1) {
      row.down == 1 ? filter_images<4, 1, T>(call, y_taps, x_taps) : filter_images<4, 2, T>(call, y_taps, x_taps);
    } else {
      row.phase(0) == 1 ? filter_images<2, 0, T>(call, y_taps, x_taps) : filter_images<2, 1, T>(call, y_taps, x_taps);
    }
    return true;
  }
  return false;
}

at::Tensor upfirdn2d(const at::Tensor& x, const at::Tensor& f, at::IntArrayRef up, at::IntArrayRef down,
                     at::IntArrayRef padding, bool flip_filter, double gain) {
  const Upfirdn2dCall call = check_upfirdn2d(x, f, up, down, padding, flip_filter, gain);
  if (call.out.numel() == 0) return call.out;
  const Taps taps = taps_of(call);
  const Axis& column = call.column;
  const int64_t num_channels = x.size(1), pixel = call.channels_last ? num_channels : 1;
  const int64_t planes = call.channels_last ? 1 : num_channels, height = call.row.out;
  const int64_t stride_n = call.x.stride(0), stride_c = call.x.stride(1), stride_y = call.x.stride(2);

  // Tiles of columns, so that a tile's rows stay in a cache.
  const int64_t samples = std::max<int64_t>(kBuffer / pixel, 8 * column.count(0));
  const int64_t step = column.up / std::gcd(column.up, column.down);
  const int64_t tile = std::min(ceil_div(ceil_div(samples * column.up, column.down), step) * step, column.out);
  const int64_t tiles = ceil_div(column.out, tile);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.x.scalar_type(), "upfirdn2d", [&] {
    if (filter_4_taps<scalar_t>(call, taps)) return;
    const scalar_t* in = call.x.const_data_ptr<scalar_t>();
    scalar_t* out = call.out.mutable_data_ptr<scalar_t>();
    const int64_t grain = std::max<int64_t>(1, (1 << 15) / (tile * pixel));
    at::parallel_for(0, x.size(0) * planes * tiles * height, grain, [&](int64_t first, int64_t last) {
      RowMaker<scalar_t> rows(call, taps, pixel);
      for (int64_t task = first; task < last;) {
        const int64_t begin = task / height % tiles * tile, image = task / height / tiles;
        const scalar_t* x = in + image / planes * stride_n + image % planes * stride_c;
        scalar_t* row = out + (image * height * column.out + begin) * pixel;
        if (task == first || tiles > 1) rows.start_tile(begin, std::min(begin + tile, column.out));
        for (int64_t y = task % height; y < height && task < last; ++y, ++task) {
          rows.make(x, stride_y, y, row + y * column.out * pixel);
        }
      }
    });
  });
  return call.out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CPU, m) { m.impl("upfirdn2d", &upfirdn2d); }

}  // namespace ggdr
