// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// CPU kernels of modulate and demodulated_act: one pass over memory, in channels_last order. The backward passes sum
// the gradients of styles, bias and noise strength on the way.

#include "cpu/maps.h"
#include "modulation.h"
#include "simd.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

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

// hx s + x hs
template <typename T>
void modulate_tangent_kernel(const Tensor& x, const Tensor& s, const Tensor& hx, const Tensor& hs, Tensor& out) {
  const Maps maps(x);
  const int64_t channels = maps.channels;
  const T *source = x.const_data_ptr<T>(), *along = hx.const_data_ptr<T>();
  const float *styles = s.const_data_ptr<float>(), *styles_along = hs.const_data_ptr<float>();
  T* target = out.mutable_data_ptr<T>();
  for_strips(maps, [&](int64_t image, int64_t begin, int64_t end, int64_t) {
    const float *own = styles + image * channels, *own_along = styles_along + image * channels;
    for (int64_t i = (image * maps.pixels + begin) * channels; begin < end; begin++, i += channels)
      for_channels(channels, [&](int64_t c, auto lanes) {
        const vec v = read(along + i + c, lanes) * read(own + c, lanes);
        write(target + i + c, v + read(source + i + c, lanes) * read(own_along + c, lanes), lanes);
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

// A value for each pixel; zeros for none.
struct Noise {
  const float* values;  // null for none
  int64_t step;

  explicit Noise(const Tensor& noise)
      : values(noise.defined() ? noise.const_data_ptr<float>() : nullptr),
        step(noise.defined() ? noise_step(noise) : 0) {}

  float at(int64_t image, int64_t pixel) const { return values ? values[image * step + pixel] : 0.0f; }
};

template <typename T>
void act_kernel(const Tensor& x, const Tensor& d, const Noise& noise, float strength, const Tensor& b,
                LeakyReLU<float> f, Tensor& y) {
  const Maps maps(x);
  const int64_t channels = maps.channels;
  const T* source = x.const_data_ptr<T>();
  const float *scales = d.const_data_ptr<float>(), *bias = b.const_data_ptr<float>();
  T* target = y.mutable_data_ptr<T>();
  for_strips(maps, [&](int64_t image, int64_t begin, int64_t end, int64_t) {
    for (int64_t i = (image * maps.pixels + begin) * channels; begin < end; begin++, i += channels) {
      const float shift = noise.at(image, begin) * strength;
      for_channels(channels, [&](int64_t c, auto lanes) {
        const vec v = read(source + i + c, lanes) * read(scales + image * channels + c, lanes);
        write(target + i + c, f.forward(v + (read(bias + c, lanes) + shift)), lanes);
      });
    }
  });
}

// f' (hx d + x hd + noise hstrength + hb)
template <typename T>
void act_tangent_kernel(const Tensor& y, const Tensor& x, const Tensor& d, const Noise& noise, const Tensor& hx,
                        const Tensor& hd, float hstrength, const Tensor& hb, LeakyReLU<float> f, Tensor& out) {
  const Maps maps(x);
  const int64_t channels = maps.channels;
  const T *results = y.const_data_ptr<T>(), *source = x.const_data_ptr<T>(), *along = hx.const_data_ptr<T>();
  const float *scales = d.const_data_ptr<float>(), *scales_along = hd.const_data_ptr<float>();
  const float* bias_along = hb.const_data_ptr<float>();
  T* target = out.mutable_data_ptr<T>();
  for_strips(maps, [&](int64_t image, int64_t begin, int64_t end, int64_t) {
    const float *own = scales + image * channels, *own_along = scales_along + image * channels;
    for (int64_t i = (image * maps.pixels + begin) * channels; begin < end; begin++, i += channels) {
      const float shift = noise.at(image, begin) * hstrength;
      for_channels(channels, [&](int64_t c, auto lanes) {
        vec v = read(along + i + c, lanes) * read(own + c, lanes);
        v += read(source + i + c, lanes) * read(own_along + c, lanes) + (read(bias_along + c, lanes) + shift);
        write(target + i + c, v * f.derivative(read(results + i + c, lanes)), lanes);
      });
    }
  });
}

template <typename T>
void act_backward_kernel(const Tensor& gy, const Tensor& y, const Tensor& x, const Tensor& d, const Noise& noise,
                         LeakyReLU<float> f, Tensor& gx, Tensor& gd, Tensor& gb, Tensor& gstrength) {
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
        const vec g = read(grads + i + c, lanes) * f.derivative(read(results + i + c, lanes));
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

void check_cpu_maps(const Tensor& x) { check_maps(x, "modulation", "x"); }

Tensor modulate(const Tensor& x, const Tensor& s) {
  check_cpu_maps(x);
  const Tensor maps = channels_last(x), styles = check_by_image("s", s, x);
  Tensor y = empty_maps(x);
  with_type(x, [&](auto type) { modulate_kernel<decltype(type)>(maps, styles, y); });
  return y;
}

std::tuple<Tensor, Tensor> modulate_backward(const Tensor& g, const Tensor& x, const Tensor& s) {
  check_cpu_maps(x);
  check_like("g", g, x);
  const Tensor grads = channels_last(g), maps = channels_last(x), styles = check_by_image("s", s, x);
  Tensor gx = empty_maps(x), gs = at::zeros(s.sizes(), s.options());
  with_type(x, [&](auto type) { modulate_backward_kernel<decltype(type)>(grads, maps, styles, gx, gs); });
  return {gx, gs};
}

Tensor modulate_tangent(const Tensor& x, const Tensor& s, const Tensor& hx, const Tensor& hs) {
  check_cpu_maps(x);
  check_like("hx", hx, x);
  const Tensor maps = channels_last(x), along = channels_last(hx);
  const Tensor styles = check_by_image("s", s, x), styles_along = check_by_image("hs", hs, x);
  Tensor out = empty_maps(x);
  with_type(x, [&](auto type) {
    modulate_tangent_kernel<decltype(type)>(maps, styles, along, styles_along, out);
  });
  return out;
}

Tensor demodulated_act(const Tensor& x, const Tensor& d, const std::optional<Tensor>& noise, const Tensor& strength,
                       const Tensor& b, double slope, double gain, double clamp) {
  check_cpu_maps(x);
  const Tensor maps = channels_last(x), scales = check_by_image("d", d, x), noises = check_noise(noise, x);
  const Tensor bias = check_values("b", b, {x.size(1)}, x), factor = check_values("strength", strength, {}, x);
  Tensor y = empty_maps(x);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto f = leaky_relu<T>(slope, gain, clamp);
    act_kernel<T>(maps, scales, Noise(noises), *factor.const_data_ptr<float>(), bias, f, y);
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> demodulated_act_backward(const Tensor& g, const Tensor& y, const Tensor& x,
                                                                    const Tensor& d,
                                                                    const std::optional<Tensor>& noise, double slope,
                                                                    double gain, double clamp) {
  check_cpu_maps(x);
  check_like("g", g, x);
  check_like("y", y, x);
  const Tensor grads = channels_last(g), results = channels_last(y), maps = channels_last(x);
  const Tensor scales = check_by_image("d", d, x), noises = check_noise(noise, x);
  Tensor gx = empty_maps(x), gd = at::zeros(d.sizes(), d.options());
  Tensor gb = at::zeros({x.size(1)}, d.options()), gstrength = at::zeros({}, d.options());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto f = leaky_relu<T>(slope, gain, clamp);
    act_backward_kernel<T>(grads, results, maps, scales, Noise(noises), f, gx, gd, gb, gstrength);
  });
  return {gx, gd, gb, gstrength};
}

Tensor demodulated_act_tangent(const Tensor& y, const Tensor& x, const Tensor& d, const std::optional<Tensor>& noise,
                               const Tensor& hx, const Tensor& hd, const std::optional<Tensor>& hstrength,
                               const std::optional<Tensor>& hb, double slope, double gain, double clamp) {
  check_cpu_maps(x);
  check_like("y", y, x);
  check_like("hx", hx, x);
  const Tensor results = channels_last(y), maps = channels_last(x), along = channels_last(hx);
  const Tensor scales = check_by_image("d", d, x), scales_along = check_by_image("hd", hd, x);
  const Tensor noises = check_noise(noise, x), factor = check_optional("hstrength", hstrength, {}, x);
  const Tensor bias = hb ? check_values("hb", *hb, {x.size(1)}, x) : at::zeros({x.size(1)}, d.options());
  Tensor out = empty_maps(x);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto f = leaky_relu<T>(slope, gain, clamp);
    const float strength = factor.defined() ? *factor.const_data_ptr<float>() : 0.0f;
    act_tangent_kernel<T>(results, maps, scales, Noise(noises), along, scales_along, strength, bias, f, out);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ggdr, CPU, m) {
  m.impl("modulate", &modulate);
  m.impl("modulate_backward", &modulate_backward);
  m.impl("modulate_tangent", &modulate_tangent);
  m.impl("demodulated_act", &demodulated_act);
  m.impl("demodulated_act_backward", &demodulated_act_backward);
  m.impl("demodulated_act_tangent", &demodulated_act_tangent);
}

}  // namespace ggdr
