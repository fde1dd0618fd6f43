// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// 3x3 convolution of stride 1 and 2 on the CPU with Winograd's minimal filtering: 36 or 81 products where the direct
// sum takes 144. Tiles of pixels are transformed, multiplied channel by channel in matrix products, and transformed
// back. All arithmetic is in float32. Images are [N, H, W, C] in memory, and channels are the lanes of all vectors.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <new>
#include <utility>

#include "maps.h"
#include "../simd.h"
#include "winograd.h"

namespace ggdr {
namespace {

constexpr int kPanel = 2 * kLanes;                          // columns that the kernel of products computes at once
constexpr int kRows = kVectorRegisters >= 32 ? 12 : 6;      // and rows: as many as fit into the registers
constexpr int64_t kScratchFloats = 1 << 20;                 // transformed tiles that a thread works on at a time

constexpr int64_t kDepth = 256;                             // tiles that are summed before the sums are touched again

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }

enum class Use { weights, left, right, sums };

// Memory of a thread, aligned to cache lines, for one use in a call. The thread keeps it for its next calls: from the
// system it would come anew each time, page by page.
float* scratch(Use use, int64_t floats) {
  struct Buffer {
    float* data = nullptr;
    int64_t size = 0;
    void resize(int64_t floats) {
      ::operator delete(data, std::align_val_t(64));
      data = nullptr;
      size = 0;
      if (floats > 0) data = static_cast<float*>(::operator new(floats * sizeof(float), std::align_val_t(64)));
      size = floats;
    }
    ~Buffer() { resize(0); }
  };
  static thread_local Buffer buffers[4];
  Buffer& buffer = buffers[static_cast<int>(use)];
  if (buffer.size < floats) buffer.resize(floats);
  return buffer.data;
}

// A batch of images, [n, height, width, channels].
struct Images {
  int64_t n, height, width, channels;

  explicit Images(const at::Tensor& x) : n(x.size(0)), height(x.size(2)), width(x.size(3)), channels(x.size(1)) {}
};

// The tiles of a batch: each has 4x4 pixels of the smaller images, which a convolution gives.
struct Tiles {
  int64_t n, rows, columns;

  explicit Tiles(const Images& small)
      : n(small.n), rows(ceil_div(small.height, kOut)), columns(ceil_div(small.width, kOut)) {}
  int64_t count() const { return n * rows * columns; }

  // Image, row and column of tile t.
  std::array<int64_t, 3> place(int64_t t) const { return {t / (rows * columns), t / columns % rows, t % columns}; }
};

// Where a tile's transform goes. Its points with the same right side are rows of one matrix, a slot. Slots lie a
// little more than their size apart: at powers of two, a tile's points would compete for the same lines of the caches.
template <class Scheme>
struct Layout {
  static constexpr int kPoints = Scheme::kPoints * Scheme::kPoints;

  // Rows of `channels`, a multiple of kLanes; or, in panels, of kPanel channels, [channels / kPanel][rows][kPanel].
  Layout(int64_t tiles, int64_t channels, bool panels) {
    const int64_t row = panels ? kPanel : channels;
    for (int s = 0; s < kSlots * kSlots; s++) {
      slot[s] = size;
      panel_stride[s] = panels ? tiles * share(s) * kPanel : kPanel;
      size += tiles * share(s) * channels + kPanel;
    }
    for (int p = 0; p < kPoints; p++) {
      const int i = p / Scheme::kPoints, j = p % Scheme::kPoints, si = Scheme::slot(i), sj = Scheme::slot(j);
      slot_of_[p] = si * kSlots + sj;
      start_[p] = slot[slot_of_[p]] + ((i - si) * share1(sj) + (j - sj)) * row;
      tile_stride_[p] = share(slot_of_[p]) * row;
    }
  }
  // Rows that a tile has in a slot.
  static constexpr int share(int slot) { return share1(slot / kSlots) * share1(slot % kSlots); }
  int64_t at(int64_t tile, int point, int64_t c) const {
    return start_[point] + tile * tile_stride_[point] + c / kPanel * panel_stride[slot_of_[point]] + c % kPanel;
  }

  int64_t slot[kSlots * kSlots], panel_stride[kSlots * kSlots], size = 0;

 private:
  static constexpr int share1(int slot) { return slot == kSlots - 1 ? Scheme::kPoints - slot : 1; }
  int64_t start_[kPoints], tile_stride_[kPoints];
  int slot_of_[kPoints];
};

// Reads size x size pixels from (y, x) on, for a vector of channels from c; zeros outside of the image.
template <int size, class T>
inline void load_tile(const T* img, const Images& g, int64_t image, int64_t y, int64_t x, int64_t c, vec* tile) {
  const int64_t lanes = std::min<int64_t>(kLanes, g.channels - c);
  const bool inside = y >= 0 && x >= 0 && y + size <= g.height && x + size <= g.width && lanes == kLanes;
  const T* base = img + ((image * g.height + y) * g.width + x) * g.channels + c;
  for (int i = 0; i < size; i++)
    for (int j = 0; j < size; j++) {
      const T* pixel = base + (i * g.width + j) * g.channels;
      if (inside)
        tile[i * size + j] = load(pixel);
      else if (y + i < 0 || y + i >= g.height || x + j < 0 || x + j >= g.width)
        tile[i * size + j] = vec{};
      else
        tile[i * size + j] = lanes == kLanes ? load(pixel) : load_part(pixel, lanes);
    }
}

// Writes size x size pixels from (y, x) on, as far as they lie in the image; where adds(i, j), on top of what is there.
template <int size, class T, class Adds>
inline void store_tile(T* img, const Images& g, int64_t image, int64_t y, int64_t x, int64_t c, const vec* tile,
                       const Adds& adds) {
  const int64_t lanes = std::min<int64_t>(kLanes, g.channels - c);
  const int64_t height = std::min<int64_t>(size, g.height - y), width = std::min<int64_t>(size, g.width - x);
  T* base = img + ((image * g.height + y) * g.width + x) * g.channels + c;
  for (int64_t i = 0; i < height; i++)
    for (int64_t j = 0; j < width; j++) {
      T* pixel = base + (i * g.width + j) * g.channels;
      vec v = tile[i * size + j];
      if (lanes == kLanes) {
        if (adds(i, j)) v += load(pixel);
        store(pixel, v);
      } else {
        if (adds(i, j)) v += load_part(pixel, lanes);
        store_part(pixel, v, lanes);
      }
    }
}

// Tiles index(begin) to index(end - 1) of images, transformed, to tiles `first`... of `out`; channels are padded with
// zeros. The images have `pad` zeros on all sides. `adjoint`: tiles of gradients of the results, 4x4 pixels without
// padding, instead of tiles of what was convolved.
template <class Scheme, bool adjoint, class T, class Index>
void transform_tiles(const T* img, const Images& g, int64_t pad, const Tiles& tiles, const Index& index, int64_t begin,
                     int64_t end, int64_t channels, float* out, const Layout<Scheme>& layout, int64_t first) {
  constexpr int size = adjoint ? kOut : Scheme::kIn, step = adjoint ? kOut : kOut * Scheme::kStride;
  constexpr int num = Layout<Scheme>::kPoints;
  for (int64_t t = begin; t < end; t++) {
    const auto [image, row, column] = tiles.place(index(t));
    const int64_t y = row * step - pad, x = column * step - pad;
    for (int64_t c = 0; c < channels; c += kLanes) {
      vec tile[size * size], points[num];
      if (c < g.channels) {
        load_tile<size>(img, g, image, y, x, c, tile);
        if constexpr (adjoint) transform_2d<size, Scheme::kPoints>(tile, points, Scheme::output_adjoint);
        else transform_2d<size, Scheme::kPoints>(tile, points, Scheme::input);
      } else {
        std::fill(points, points + num, vec{});
      }
      for (int p = 0; p < num; p++) store(out + layout.at(first + t - begin, p, c), points[p]);
    }
  }
}

// Products, to pixels of tiles index(begin) to index(end - 1). `adjoint`: to gradients of what was convolved, which
// overlap, and add up.
template <class Scheme, bool adjoint, class T, class Index>
void untransform_tiles(const float* in, const Layout<Scheme>& layout, const Images& g, const Tiles& tiles,
                       const Index& index, int64_t begin, int64_t end, T* img) {
  constexpr int size = adjoint ? Scheme::kIn : kOut, step = adjoint ? kOut * Scheme::kStride : kOut;
  constexpr int num = Layout<Scheme>::kPoints;
  for (int64_t t = begin; t < end; t++) {
    const auto place = tiles.place(index(t));
    const int64_t image = place[0], row = place[1], column = place[2], y = row * step, x = column * step;
    for (int64_t c = 0; c < g.channels; c += kLanes) {
      vec points[num], tile[size * size];
      for (int p = 0; p < num; p++) points[p] = load(in + layout.at(t - begin, p, c));
      if constexpr (adjoint) transform_2d<Scheme::kPoints, size>(points, tile, Scheme::input_adjoint);
      else transform_2d<Scheme::kPoints, size>(points, tile, Scheme::output);
      store_tile<size>(img, g, image, y, x, c, tile, [&](int64_t i, int64_t j) {
        // The tile to the left came before; so did, for odd rows of tiles, the rows above and below.
        const bool between = row % 2 == 1 && (i == 0 || (i == size - 1 && row + 1 < tiles.rows));
        return adjoint && (between || (j == 0 && column > 0));
      });
    }
  }
}

// c[m, 0:kPanel] (+)= sum over k of a[m*a_row + k*a_step] * b[k, 0:kPanel].
template <int rows>
inline void product(int64_t depth, const float* a, int64_t a_row, int64_t a_step, const float* b, float* c,
                    int64_t c_row, bool accumulate) {
  vec sum[rows][2];
#pragma GCC unroll 12
  for (int m = 0; m < rows; m++) sum[m][0] = sum[m][1] = vec{};
  for (int64_t k = 0; k < depth; k++, b += kPanel, a += a_step) {
    const vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 12
    for (int m = 0; m < rows; m++) {
      const float left = a[m * a_row];
      sum[m][0] += left * b0;
      sum[m][1] += left * b1;
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < rows; m++) {
    float* out = c + m * c_row;
    if (accumulate) {
      sum[m][0] += load(out);
      sum[m][1] += load(out + kLanes);
    }
    store(out, sum[m][0]);
    store(out + kLanes, sum[m][1]);
  }
}

// c [rows, panels*kPanel] (+)= a [rows, depth] times b [panels][depth][kPanel].
void multiply(int64_t rows, int64_t depth, int64_t panels, const float* a, int64_t a_row, int64_t a_step,
              const float* b, int64_t b_panel, float* c, int64_t c_row, bool accumulate) {
  for (int64_t n = 0; n < panels; n++, b += b_panel, c += kPanel) {
    int64_t m = 0;
    const auto run = [&](auto size) {
      for (; m + size <= rows; m += size)
        product<decltype(size)::value>(depth, a + m * a_row, a_row, a_step, b, c + m * c_row, c_row, accumulate);
    };
    run(std::integral_constant<int, kRows>());
    run(std::integral_constant<int, 4>());
    run(std::integral_constant<int, 1>());
  }
}

// Right sides of products: w [O, I, 3, 3] transformed, [36][outputs / kPanel][inputs][kPanel], padded with zeros.
struct Weights {
  int64_t inputs, outputs, stride;
  float* data;

  template <class Scheme>
  Weights(Scheme, const at::Tensor& w, bool swap, bool flip)
      : inputs(round_up(w.size(swap ? 0 : 1), kLanes)), outputs(round_up(w.size(swap ? 1 : 0), kPanel)),
        stride(inputs * outputs + kPanel), data(scratch(Use::weights, kSlots * kSlots * stride)) {
    const int64_t num_out = w.size(swap ? 1 : 0), num_in = w.size(swap ? 0 : 1);
    const int64_t out_stride = w.stride(swap ? 1 : 0), in_stride = w.stride(swap ? 0 : 1);
    const int64_t sign = flip ? -1 : 1, y_stride = sign * w.stride(2), x_stride = sign * w.stride(3);
    const float* base = w.const_data_ptr<float>() + (flip ? 2 * (w.stride(2) + w.stride(3)) : 0);
    at::parallel_for(0, outputs / kLanes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin * kLanes; o < end * kLanes; o += kLanes) {
        const int64_t lanes = std::min<int64_t>(kLanes, num_out - o);
        float* target = data + o / kPanel * inputs * kPanel + o % kPanel;
        for (int64_t i = 0; i < inputs; i++, target += kPanel) {
          vec taps[9], slots[kSlots * kSlots];
          for (int k = 0; k < 9; k++) {
            const float* source = base + o * out_stride + i * in_stride + k / 3 * y_stride + k % 3 * x_stride;
            taps[k] = vec{};
            if (i < num_in)
              for (int64_t lane = 0; lane < lanes; lane++) taps[k][lane] = source[lane * out_stride];
          }
          transform_2d<3, kSlots>(taps, slots, Scheme::weight);
          for (int s = 0; s < kSlots * kSlots; s++) store(target + s * stride, slots[s]);
        }
      }
    });
  }
};

// Tiles that are worked on at a time: few enough for the caches, but not below `least`, and in even shares.
int64_t tiles_at_once(int64_t tiles, int64_t values, int64_t least, int64_t shares) {
  const int64_t most = std::max(least, kScratchFloats / values);
  return round_up(ceil_div(tiles, round_up(ceil_div(tiles, most), shares)), kRows);
}

// y = x * w with `pad` zeros around x, or, for `adjoint`, the adjoint of that without padding, whose results overlap:
// from small to large images.
template <class Scheme, bool adjoint, class T>
void convolve(const at::Tensor& x, const Weights& w, int64_t pad, const at::Tensor& y) {
  const Images in(x), out(y);
  const Tiles tiles(adjoint ? in : out);
  const T* source = x.const_data_ptr<T>();
  T* target = y.mutable_data_ptr<T>();
  const int64_t values = Layout<Scheme>::kPoints * (w.inputs + w.outputs);
  // `count` tiles, of which each `unit` in a row are one thread's.
  const auto run = [&](int64_t count, int64_t unit, const auto& index) {
    const int64_t step = round_up(tiles_at_once(count, values, 4 * kRows, at::get_num_threads()), unit);
    const Layout<Scheme> in_layout(step, w.inputs, false), out_layout(step, w.outputs, false);
    at::parallel_for(0, ceil_div(count, step), 1, [&](int64_t first, int64_t last) {
      float *left = scratch(Use::left, in_layout.size), *products = scratch(Use::right, out_layout.size);
      for (int64_t begin = first * step; begin < std::min(count, last * step); begin += step) {
        const int64_t end = std::min(count, begin + step);
        transform_tiles<Scheme, adjoint>(source, in, pad, tiles, index, begin, end, w.inputs, left, in_layout, 0);
        for (int s = 0; s < kSlots * kSlots; s++)
          multiply((end - begin) * in_layout.share(s), w.inputs, w.outputs / kPanel, left + in_layout.slot[s], w.inputs,
                   1, w.data + s * w.stride, w.inputs * kPanel, products + out_layout.slot[s], w.outputs, false);
        untransform_tiles<Scheme, adjoint>(products, out_layout, out, tiles, index, begin, end, target);
      }
    });
  };
  if constexpr (!adjoint) return run(tiles.count(), 1, [](int64_t t) { return t; });
  // Tiles of a row overlap, and rows with the next ones: even rows of all images come first, then the odd ones.
  for (int64_t parity = 0; parity < 2; parity++) {
    const int64_t rows = (tiles.rows + 1 - parity) / 2, columns = tiles.columns;
    if (rows == 0) continue;
    run(tiles.n * rows * columns, columns, [&](int64_t t) {
      return (t / (rows * columns) * tiles.rows + t / columns % rows * 2 + parity) * columns + t % columns;
    });
  }
}

// gw [O][3][3][I] = gradient of x * w to w, where gy is that to the result, and x has `pad` zeros around it.
template <class Scheme, class T>
void correlate(const at::Tensor& x, const at::Tensor& gy, int64_t pad, const at::Tensor& gw) {
  constexpr int kPoints = Layout<Scheme>::kPoints;
  const Images in(x), out(gy);
  const Tiles tiles(out);
  const int64_t inputs = round_up(in.channels, kPanel), outputs = round_up(out.channels, kLanes);
  const int64_t count = tiles.count(), step = tiles_at_once(count, kPoints * (inputs + outputs), kDepth, 1);
  const int64_t size = outputs * inputs;
  const Layout<Scheme> left_layout(step, outputs, false), right_layout(step, inputs, true);
  float *left = scratch(Use::left, left_layout.size), *right = scratch(Use::right, right_layout.size);
  float* sums = scratch(Use::sums, kSlots * kSlots * size);
  const T *source = x.const_data_ptr<T>(), *grad = gy.const_data_ptr<T>();
  for (int64_t begin = 0; begin < count; begin += step) {
    const int64_t num = std::min(step, count - begin);
    at::parallel_for(0, num, 8, [&](int64_t first, int64_t last) {
      const auto index = [&](int64_t t) { return begin + t; };
      transform_tiles<Scheme, false>(source, in, pad, tiles, index, first, last, inputs, right, right_layout, first);
      transform_tiles<Scheme, true>(grad, out, 0, tiles, index, first, last, outputs, left, left_layout, first);
    });
    // Slots with many points come last in number, and first in time: a thread that is done takes the next.
    std::atomic<int> next{kSlots * kSlots};
    at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
      for (int s; (s = --next) >= 0;)
        multiply(out.channels, num * left_layout.share(s), inputs / kPanel, left + left_layout.slot[s], 1, outputs,
                 right + right_layout.slot[s], right_layout.panel_stride[s], sums + s * size, inputs, begin > 0);
    });
  }
  float* target = gw.mutable_data_ptr<float>();
  at::parallel_for(0, out.channels, 4, [&](int64_t first, int64_t last) {
    for (int64_t o = first; o < last; o++)
      for (int64_t c = 0; c < in.channels; c += kLanes) {
        vec slots[kSlots * kSlots], taps[9];
        for (int s = 0; s < kSlots * kSlots; s++) slots[s] = load(sums + s * size + o * inputs + c);
        transform_2d<kSlots, 3>(slots, taps, Scheme::weight_adjoint);
        const int64_t lanes = std::min<int64_t>(kLanes, in.channels - c);
        for (int k = 0; k < 9; k++) store_part(target + (o * 9 + k) * in.channels + c, taps[k], lanes);
      }
  });
}

void check_scheme(int64_t stride, int64_t padding) {
  TORCH_CHECK(stride == 1 || stride == 2, "conv3x3: stride must be 1 or 2, got ", stride);
  TORCH_CHECK(padding == 0 || (padding == 1 && stride == 1), "conv3x3: padding must be 0, or 1 with stride 1, got ",
              padding, " with stride ", stride);
}

at::Tensor conv3x3(const at::Tensor& x, const at::Tensor& w, int64_t stride, int64_t padding, bool transpose) {
  check_maps(x, "conv3x3", "x");
  check_scheme(stride, padding);
  TORCH_CHECK(w.dim() == 4 && w.size(2) == 3 && w.size(3) == 3 && w.scalar_type() == at::kFloat,
              "conv3x3: w must be [O, I, 3, 3] float32, got ", w.sizes(), " ", w.scalar_type());
  TORCH_CHECK(x.size(1) == w.size(transpose ? 0 : 1), "conv3x3: x has ", x.size(1), " channels, w expects ",
              w.size(transpose ? 0 : 1));
  TORCH_CHECK(transpose || (x.size(2) + 2 * padding >= 3 && x.size(3) + 2 * padding >= 3),
              "conv3x3: with padding ", padding, " x must have at least ", 3 - 2 * padding, " pixels a side, got ",
              x.sizes());
  TORCH_CHECK(stride == 1 || transpose || (x.size(2) % 2 == 1 && x.size(3) % 2 == 1),
              "conv3x3: stride 2 needs odd sizes, got x ", x.sizes());
  const auto result = [&](int64_t size) {
    return transpose ? stride * (size - 1) + 3 - 2 * padding : (size + 2 * padding - 3) / stride + 1;
  };
  const at::Tensor images = channels_last(x);
  const at::Tensor y = at::empty({x.size(0), w.size(transpose ? 1 : 0), result(x.size(2)), result(x.size(3))},
                                 x.options(), at::MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  with_type(x, [&](auto type) {
    using T = decltype(type);
    // With stride 1, the adjoint is a convolution with flipped taps.
    const int64_t pad = transpose ? 2 - padding : padding;
    if (stride == 1) convolve<Stride1, false, T>(images, Weights(Stride1(), w, transpose, transpose), pad, y);
    else if (transpose) convolve<Stride2, true, T>(images, Weights(Stride2(), w, true, false), 0, y);
    else convolve<Stride2, false, T>(images, Weights(Stride2(), w, false, false), 0, y);
  });
  return y;
}

at::Tensor conv3x3_weight_grad(const at::Tensor& x, const at::Tensor& gy, int64_t stride, int64_t padding) {
  check_maps(x, "conv3x3", "x");
  check_maps(gy, "conv3x3", "gy");
  check_scheme(stride, padding);
  const int64_t extra = 3 - stride - 2 * padding;
  TORCH_CHECK(x.scalar_type() == gy.scalar_type() && x.size(0) == gy.size(0) &&
                  x.size(2) == stride * gy.size(2) + extra && x.size(3) == stride * gy.size(3) + extra,
              "conv3x3: x ", x.sizes(), " ", x.scalar_type(), " and gy ", gy.sizes(), " ", gy.scalar_type(),
              " do not belong together with stride ", stride, " and padding ", padding);
  const at::Tensor images = channels_last(x), grads = channels_last(gy);
  const at::Tensor gw = at::empty({gy.size(1), x.size(1), 3, 3}, x.options().dtype(at::kFloat),
                                  at::MemoryFormat::ChannelsLast);
  if (x.numel() == 0 || gy.numel() == 0) return gw.zero_();
  with_type(x, [&](auto type) {
    using T = decltype(type);
    stride == 1 ? correlate<Stride1, T>(images, grads, padding, gw) : correlate<Stride2, T>(images, grads, 0, gw);
  });
  return gw;
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CPU, m) {
  m.impl("conv3x3", conv3x3);
  m.impl("conv3x3_weight_grad", conv3x3_weight_grad);
}

}  // namespace ggdr
