// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
// A register's worth of float32, in the vector extension that GCC and Clang share, and its loads and stores from
// float32 and bfloat16.

#pragma once

#include <c10/util/BFloat16.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int kLanes = 16, kVectorRegisters = 32;
#elif defined(__AVX__)
constexpr int kLanes = 8, kVectorRegisters = 16;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kVectorRegisters = 32;
#else
constexpr int kLanes = 4, kVectorRegisters = 16;
#endif

using c10::BFloat16;
typedef float vec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t vec_u32 __attribute__((vector_size(4 * kLanes)));
typedef uint16_t vec_u16 __attribute__((vector_size(2 * kLanes)));

inline vec load(const float* p) {
  vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline vec load(const BFloat16* p) {
  vec_u16 bits;
  std::memcpy(&bits, p, sizeof bits);
  return (vec)(__builtin_convertvector(bits, vec_u32) << 16);
}

inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }

// Rounds to nearest even; NaN stays NaN.
inline void store(BFloat16* p, vec v) {
#if defined(__AVX512BF16__)
  const __m256bh out = _mm512_cvtneps_pbh((__m512)v);
#else
  const vec_u32 bits = (vec_u32)v;
  const vec_u32 rounded = bits + 0x7fff + (bits >> 16 & 1);
  const vec_u32 is_nan = (vec_u32)(v != v);
  const vec_u16 out = __builtin_convertvector(((rounded & ~is_nan) | (0x7fc00000u & is_nan)) >> 16, vec_u16);
#endif
  std::memcpy(p, &out, sizeof out);
}

// The first `lanes` elements; the rest are zeros.
template <typename T>
inline vec load_part(const T* p, int64_t lanes) {
  alignas(64) T buffer[kLanes] = {};
  std::memcpy(buffer, p, lanes * sizeof(T));
  return load(buffer);
}

template <typename T>
inline void store_part(T* p, vec v, int64_t lanes) {
  alignas(64) T buffer[kLanes];
  store(buffer, v);
  std::memcpy(p, buffer, lanes * sizeof(T));
}
