// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// What a modulated convolution does to its input and its output on the CPU, each in one pass over memory; the
// backward passes read each map once and sum the gradients of styles, bias and noise strength on the way.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "maps.h"
#include "../simd.h"

namespace ggdr {
namespace {

using at::Tensor;

// Sums run over strips of so many pixels of one image first, so that they do not depend on the number of threads.
constexpr int64_t kStrip = 256;

// The shape of maps in channels_last order.
struct Maps {
  int64_t n, channels, pixels;  // pixels of one image

  explicit Maps(const Tensor& x) : n(x.size(0)), channels(x.size(1)), pixels(x.size(2) * x.size(3)) {}

  int64_t strips() const { return (pixels + kStrip - 1) / kStrip; }
};

Tensor empty_maps(const Tensor& like) {
  return at::empty(like.sizes(), like.options(), at::MemoryFormat::ChannelsLast);
}

// Runs body(image, first pixel, end pixel, strip) on all strips of all images.
template <typename Body>
void for_strips(const Maps& maps, const Body& body) {
  at::parallel_for(0, maps.n * maps.strips(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t strip = i % maps.strips();
      body(i / maps.strips(), strip * kStrip, std::min(maps.pixels, (strip + 1) * kStrip), i);
    }
  });
}

// Runs body(channel, lanes) for a register's worth of channels at a time; lanes < kLanes in the last one.
template <typename Body>
inline void for_channels(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) body(c, std::integral_constant<int64_t, kLanes>());
  if (c < channels) body(c, channels - c);
}

template <typename T, typename Lanes>
inline vec read(const T* p, Lanes lanes) {
  if constexpr (std::is_same_v<Lanes, int64_t>) return load_part(p, lanes);
  else return load(p);
}

template <typename T, typename Lanes>
inline void write(T* p, vec v, Lanes lanes) {
  if constexpr (std::is_same_v<Lanes, int64_t>) store_part(p, v, lanes);
  else store(p, v);
}

template <typename Lanes>
inline void add_to(float* p, vec v, Lanes lanes) {
  write(p, read(p, lanes) + v, lanes);
}

inline float lane_sum(vec v) {
  float sum = 0;
  for (int i = 0; i < kLanes; i++) sum += v[i];
  return sum;
}

// sums [strips of an image, channels] added up in order.
void add_strips(const float* sums, int64_t strips, int64_t channels, float* out) {
  for (int64_t strip = 0; strip < strips; strip++)
    for (int64_t c = 0; c < channels; c++) out[c] += sums[strip * channels + c];
}

// x * s.

template <typename T>
void modulate_kernel(const Tensor& x, const Tensor& s, Tensor& y) {
  const Maps maps(x);
  const int64_t channels = maps.channels;
  const T* source = x.const_data_ptr<T>();
  const float* styles = s.const_data_ptr<float>();
  T* target = y.mutable_data_ptr<T>();
  for_strips(maps, [&](int64_t image, int64_t begin, int64_t end, int64_t) {
    for (int64_t i = (image * maps.pixels + begin) * channels; begin < end; begin++, i += channels)
      for_channels(channels, [&](int64_t c, auto lanes) {
        write(target + i + c, read(source + i + c, lanes) * read(styles + image * channels + c, lanes), lanes);
      });
  });
}

template <typename T>
void modulate_backward_kernel(const Tensor& gy, const Tensor& x, const Tensor& s, Tensor& gx, Tensor& gs) {
  const Maps maps(x);
  const int64_t channels = maps.channels;
  const T *grads = gy.const_data_ptr<T>(), *source = x.const_data_ptr<T>();
  const float* styles = s.const_data_ptr<float>();
  T* target = gx.mutable_data_ptr<T>();
  std::vector<float> sums(maps.n * maps.strips() * channels, 0.0f);
  for_strips(maps, [&](int64_t image, int64_t begin, int64_t end, int64_t strip) {
    float* sum = sums.data() + strip * channels;
    for (int64_t i = (image * maps.pixels + begin) * channels; begin < end; begin++, i += channels)
      for_channels(channels, [&](int64_t c, auto lanes) {
        const vec g = read(grads + i + c, lanes);
        write(target + i + c, g * read(styles + image * channels + c, lanes), lanes);
        add_to(sum + c, g * read(source + i + c, lanes), lanes);
      });
  });
  float* out = gs.mutable_data_ptr<float>();
  for (int64_t image = 0; image < maps.n; image++)
    add_strips(sums.data() + image * maps.strips() * channels, maps.strips(), channels, out + image * channels);
}

// clamp(gain * leaky_relu(x * d + noise * strength + b)).

struct Noise {
  const float* values;  // [n, pixels], or [pixels] with step 0; none: nullptr
  int64_t step;
  float strength;

  Noise(const std::optional<Tensor>& noise, const Tensor& strength, const Maps& maps)
      : values(noise ? noise->const_data_ptr<float>() : nullptr),
        step(noise && noise->numel() > maps.pixels ? maps.pixels : 0),
        strength(*strength.const_data_ptr<float>()) {}

  float at(int64_t image, int64_t pixel) const { return values ? values[image * step + pixel] : 0.0f; }
};

struct Activation {
  float slope, gain, clamp;  // no clamp: infinity

  vec forward(vec v) const {
    v = v * (v > 0 ? vec{} + gain : vec{} + gain * slope);
    v = v > clamp ? vec{} + clamp : v;
    return v < -clamp ? vec{} - clamp : v;
  }
  // The derivative, from the result.
  vec derivative(vec y) const {
    const vec d = y > 0 ? vec{} + gain : vec{} + gain * slope;
    return ((y < clamp) & (y > -clamp)) | (y != y) ? d : vec{};
  }
};

template <typename T>
void act_kernel(const Tensor& x, const Tensor& d, const Noise& noise, const Tensor& b, Activation act, Tensor& y) {
  const Maps maps(x);
  const int64_t channels = maps.channels;
  const T* source = x.const_data_ptr<T>();
  const float *scales = d.const_data_ptr<float>(), *bias = b.const_data_ptr<float>();
  T* target = y.mutable_data_ptr<T>();
  for_strips(maps, [&](int64_t image, int64_t begin, int64_t end, int64_t) {
    for (int64_t i = (image * maps.pixels + begin) * channels; begin < end; begin++, i += channels) {
      const float shift = noise.at(image, begin) * noise.strength;
      for_channels(channels, [&](int64_t c, auto lanes) {
        const vec v = read(source + i + c, lanes) * read(scales + image * channels + c, lanes);
        write(target + i + c, act.forward(v + (read(bias + c, lanes) + shift)), lanes);
      });
    }
  });
}

template <typename T>
void act_backward_kernel(const Tensor& gy, const Tensor& y, const Tensor& x, const Tensor& d, const Noise& noise,
                         Activation act, Tensor& gx, Tensor& gd, Tensor& gb, Tensor& gstrength) {
  const Maps maps(x);
  const int64_t channels = maps.channels, sums_of_strip = 2 * channels + 1;
  const T *grads = gy.const_data_ptr<T>(), *results = y.const_data_ptr<T>(), *source = x.const_data_ptr<T>();
  const float* scales = d.const_data_ptr<float>();
  T* target = gx.mutable_data_ptr<T>();
  std::vector<float> sums(maps.n * maps.strips() * sums_of_strip, 0.0f);
  for_strips(maps, [&](int64_t image, int64_t begin, int64_t end, int64_t strip) {
    float *d_sum = sums.data() + strip * sums_of_strip, *b_sum = d_sum + channels, *noise_sum = b_sum + channels;
    for (int64_t i = (image * maps.pixels + begin) * channels; begin < end; begin++, i += channels) {
      vec pixel_sum{};
      for_channels(channels, [&](int64_t c, auto lanes) {
        const vec g = read(grads + i + c, lanes) * act.derivative(read(results + i + c, lanes));
        write(target + i + c, g * read(scales + image * channels + c, lanes), lanes);
        add_to(d_sum + c, g * read(source + i + c, lanes), lanes);
        add_to(b_sum + c, g, lanes);
        pixel_sum += g;
      });
      *noise_sum += lane_sum(pixel_sum) * noise.at(image, begin);
    }
  });
  float *d_out = gd.mutable_data_ptr<float>(), *b_out = gb.mutable_data_ptr<float>();
  float* strength_out = gstrength.mutable_data_ptr<float>();
  for (int64_t strip = 0; strip < maps.n * maps.strips(); strip++) {
    const float* sum = sums.data() + strip * sums_of_strip;
    add_strips(sum, 1, channels, d_out + strip / maps.strips() * channels);
    add_strips(sum + channels, 1, channels, b_out);
    *strength_out += sum[2 * channels];
  }
}

void check_like(const Tensor& x, const char* name, const Tensor& like) {
  TORCH_CHECK(x.sizes() == like.sizes() && x.scalar_type() == like.scalar_type(), "modulation: ", name, " is ",
              x.sizes(), " ", x.scalar_type(), ", expected ", like.sizes(), " ", like.scalar_type());
}

void check_floats(const Tensor& t, const char* name, at::IntArrayRef sizes) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.sizes() == sizes, "modulation: ", name, " must be ", sizes,
              " float32, got ", t.sizes(), " ", t.scalar_type());
}

std::optional<Tensor> checked_noise(const std::optional<Tensor>& noise, const Tensor& x) {
  if (!noise) return noise;
  const int64_t pixels = x.size(2) * x.size(3);
  TORCH_CHECK(noise->scalar_type() == at::kFloat && noise->dim() >= 2 && noise->size(-2) == x.size(2) &&
                  noise->size(-1) == x.size(3) &&
                  (noise->numel() == pixels || (noise->dim() == 4 && noise->numel() == x.size(0) * pixels)),
              "modulation: noise must be [N, 1, H, W] or [H, W] float32 for x ", x.sizes(), ", got ", noise->sizes(),
              " ", noise->scalar_type());
  return noise->contiguous();
}

Activation activation(double slope, double gain, double clamp, const Tensor& x) {
  TORCH_CHECK(slope > 0 && gain > 0, "modulation: slope and gain must be positive, got ", slope, " and ", gain);
  float bound = clamp < 0 ? std::numeric_limits<float>::infinity() : float(clamp);
  if (is_half(x)) bound = BFloat16(bound);  // so that the result tells where it was clamped
  return {float(slope), float(gain), bound};
}

Tensor modulate(const Tensor& x, const Tensor& s) {
  check_maps(x, "modulation", "x");
  check_floats(s, "s", {x.size(0), x.size(1)});
  const Tensor maps = channels_last(x), styles = s.contiguous();
  Tensor y = empty_maps(x);
  with_type(x, [&](auto type) { modulate_kernel<decltype(type)>(maps, styles, y); });
  return y;
}

std::tuple<Tensor, Tensor> modulate_backward(const Tensor& gy, const Tensor& x, const Tensor& s) {
  check_maps(x, "modulation", "x");
  check_like(gy, "gy", x);
  check_floats(s, "s", {x.size(0), x.size(1)});
  const Tensor grads = channels_last(gy), maps = channels_last(x), styles = s.contiguous();
  Tensor gx = empty_maps(x), gs = at::empty(s.sizes(), s.options()).zero_();
  with_type(x, [&](auto type) { modulate_backward_kernel<decltype(type)>(grads, maps, styles, gx, gs); });
  return {gx, gs};
}

Tensor demodulated_act(const Tensor& x, const Tensor& d, const std::optional<Tensor>& noise, const Tensor& strength,
                       const Tensor& b, double slope, double gain, double clamp) {
  check_maps(x, "modulation", "x");
  check_floats(d, "d", {x.size(0), x.size(1)});
  check_floats(b, "b", {x.size(1)});
  check_floats(strength, "strength", {});
  const std::optional<Tensor> noise_values = checked_noise(noise, x);
  const Tensor maps = channels_last(x), scales = d.contiguous(), bias = b.contiguous();
  const Noise shifts(noise_values, strength, Maps(x));
  Tensor y = empty_maps(x);
  const Activation act = activation(slope, gain, clamp, x);
  with_type(x, [&](auto type) { act_kernel<decltype(type)>(maps, scales, shifts, bias, act, y); });
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> demodulated_act_backward(
    const Tensor& gy, const Tensor& y, const Tensor& x, const Tensor& d, const std::optional<Tensor>& noise,
    const Tensor& strength, double slope, double gain, double clamp) {
  check_maps(x, "modulation", "x");
  check_like(y, "y", x);
  check_like(gy, "gy", x);
  check_floats(d, "d", {x.size(0), x.size(1)});
  check_floats(strength, "strength", {});
  const std::optional<Tensor> noise_values = checked_noise(noise, x);
  const Tensor grads = channels_last(gy), results = channels_last(y), maps = channels_last(x), scales = d.contiguous();
  const Noise shifts(noise_values, strength, Maps(x));
  Tensor gx = empty_maps(x), gd = at::empty(d.sizes(), d.options()).zero_();
  Tensor gb = at::empty({x.size(1)}, d.options()).zero_(), gstrength = at::empty({}, d.options()).zero_();
  const Activation act = activation(slope, gain, clamp, x);
  with_type(x, [&](auto type) {
    act_backward_kernel<decltype(type)>(grads, results, maps, scales, shifts, act, gx, gd, gb, gstrength);
  });
  return {gx, gd, gb, gstrength};
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CPU, m) {
  m.impl("modulate", modulate);
  m.impl("modulate_backward", modulate_backward);
  m.impl("demodulated_act", demodulated_act);
  m.impl("demodulated_act_backward", demodulated_act_backward);
}

}  // namespace ggdr
