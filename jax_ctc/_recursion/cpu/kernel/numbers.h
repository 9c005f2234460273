// Extended-range numbers, and the narrow floats that scores come in.
//
// A number is m * 2^e, float m >= 1 and int32 e; exponent kZero, and no other, is 0.
// jax_ctc/_numbers/extended.py tells why, in the same words.
//
// Everything here is written for the compiler's vectoriser: no branches, no calls, no
// library functions, and integer and float bits exchanged by memcpy.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

// What a build compiles for several processors at once; see build_kernel.py.
#ifndef JAX_CTC_CLONES
#define JAX_CTC_CLONES
#endif
#define JAX_CTC_INLINE static inline __attribute__((always_inline))
// A loop over a row is a function of its own: inlined into its caller, it is no longer
// known that its arrays are apart, and compilers fall back to one number at a time.
#define JAX_CTC_KERNEL [[maybe_unused]] static JAX_CTC_CLONES __attribute__((noinline))

namespace jax_ctc {

constexpr int32_t kZero = -(1 << 30);  // two of them add up to what int32 still holds
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr double kLn2 = 0.693147180559945309417;

template <typename To, typename From>
JAX_CTC_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

JAX_CTC_INLINE int32_t max(int32_t a, int32_t b) { return a > b ? a : b; }
JAX_CTC_INLINE int32_t min(int32_t a, int32_t b) { return a < b ? a : b; }
JAX_CTC_INLINE float max(float a, float b) { return a > b ? a : b; }
JAX_CTC_INLINE float min(float a, float b) { return a < b ? a : b; }

// 2^e for e <= 127; 0 for e < -126.
JAX_CTC_INLINE float pow2(int32_t e) { return bits_as<float>(max(e + 127, 0) << 23); }
// The same for e <= 1023, and 0 for e < -1022.
JAX_CTC_INLINE double pow2_double(int32_t e) {
  return bits_as<double>(int64_t(max(e + 1023, 0)) << 52);
}

constexpr float kLog2e = 1.44269504f;
// ln 2 in two parts; the first has 9 bits, so that products with integers are exact.
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;

// exp(d) for d <= 0, -inf included: off by an ulp, exactly 1 for 0, and 0 below -87.
JAX_CTC_INLINE float exp_of(float d) {
  constexpr float kLeast = -87.0f;      // where exp is still a normal number
  constexpr float kRound = 0x1.8p+23f;  // added, it leaves an integer in the last bits
  const float c = d > kLeast ? d : kLeast;
  const float shifted = c * kLog2e + kRound;
  const float k = shifted - kRound;
  const float r = (c - k * kLn2High) - k * kLn2Low;
  float p = 0x1.6a2416p-10f;
  p = p * r + 0x1.1239f4p-7f;
  p = p * r + 0x1.5558f2p-5f;
  p = p * r + 0x1.555492p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // Times 2^k: the bits of kRound above those of k fall out.
  const uint32_t bits = bits_as<uint32_t>(p) + (bits_as<uint32_t>(shifted) << 23);
  return d > kLeast ? bits_as<float>(bits) : 0.0f;
}

// 2 exp(r) for r in (-ln 2, 0], off by 1.4e-8 relatively; exactly 2 for r = 0.
JAX_CTC_INLINE float two_exp(float r) {
  float p = 0x1.007c2cp-9f;
  p = p * r + 0x1.04b778p-6f;
  p = p * r + 0x1.53dfc8p-4f;
  p = p * r + 0x1.553e36p-2f;
  p = p * r + 0x1.fffe9ep-1f;
  p = p * r + 0x1.fffff8p+0f;
  return p * r + 2.0f;
}

// exp(d) for d <= 0 as an extended-range number, m within [0.94, 2.13].
//
// ln 2 in three parts, of 4 and of 5 bits and the rest: the products are exact down to
// d = -3.6e5, whether or not a processor has fused multiply-add. Not always is r in
// (-ln 2, 0]: y is rounded, and k may be off by one. That does no harm; but far down,
// where float32 numbers are further apart than 0.06, r is all rounding, and is bounded.
JAX_CTC_INLINE void split(float d, float* m, int32_t* e) {
  constexpr float kFirst = 0.6875f, kSecond = 0.005615234375f, kRest = 3.19461849e-5f;
  float y = d * kLog2e;
  y = y > float(kZero) ? y : float(kZero);
  const int32_t k = static_cast<int32_t>(y);
  const float f = float(k);
  float r = ((d - f * kFirst) - f * kSecond) - f * kRest;
  r = r > -0.75f ? r : -0.75f;
  r = r < 0.06f ? r : 0.06f;
  *m = two_exp(r);
  *e = max(k - 1, kZero);
}

// Scores and gradients of two bytes; all arithmetic is in float32.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

JAX_CTC_INLINE float load(float x) { return x; }

JAX_CTC_INLINE float load(BFloat16 x) {
  return bits_as<float>(static_cast<uint32_t>(x.bits) << 16);
}

JAX_CTC_INLINE float load(Float16 x) {
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  const float normal = bits_as<float>(magnitude + (112u << 23));
  // Subnormal: as if 1 stood before its fraction, then that 1 taken away.
  const float subnormal = bits_as<float>(magnitude + (113u << 23)) - 0x1p-14f;
  const float special = bits_as<float>(magnitude | 0x7f800000u);
  float f = magnitude < (1u << 23) ? subnormal : normal;
  f = magnitude < (31u << 23) ? f : special;
  return bits_as<float>(bits_as<uint32_t>(f) | static_cast<uint32_t>(x.bits & 0x8000)
                                                   << 16);
}

// To the nearest, ties to even; finite x only.
JAX_CTC_INLINE void store(float* to, float x) { *to = x; }

JAX_CTC_INLINE void store(BFloat16* to, float x) {
  const uint32_t u = bits_as<uint32_t>(x);
  to->bits = static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// |x| < 65504: gradients are within [-1, 1].
JAX_CTC_INLINE void store(Float16* to, float x) {
  const uint32_t u = bits_as<uint32_t>(x), magnitude = u & 0x7fffffff;
  const uint32_t normal =
      (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Added to 1/2, whose last bit is worth what a subnormal's is, it is rounded there.
  const uint32_t subnormal =
      bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - bits_as<uint32_t>(0.5f);
  const uint32_t rounded = magnitude < (113u << 23) ? subnormal : normal;
  to->bits = static_cast<uint16_t>(rounded | (u >> 16 & 0x8000));
}

}  // namespace jax_ctc
