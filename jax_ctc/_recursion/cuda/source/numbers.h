// Extended-range numbers, and what the kernels need of CUDA.
//
//   value = m * 2^e      float32 m >= 1, int32 e >= kZero; e == kZero, and no other, means 0
//   a * b : significands multiply, exponents add
//   a + b : both aligned to the larger exponent, whose term enters whole
//
// Significands may grow between renormalisations: at most 6-fold a frame (three terms,
// times an emission below 2), so 2^21 in 8 frames, and the product of two 2^42.
// Fused multiply-adds are written out, so that every compiler rounds alike.
//
// A Sum keeps what its additions round away as well: it is (m + lost) * 2^e. Where a model
// is sure, one way is nearly all of the sum, and what the others add to it in a frame is
// below its last bit: over a thousand frames as much would be lost as the loss is.
#pragma once
#ifndef __CUDACC__
#include "emulate.h"
#endif

namespace ctc {

constexpr int kZero = -(1 << 30);
// So close to kZero a sum may hold terms that were 0: such numbers are taken for 0.
constexpr int kGuard = 128;
constexpr double kLn2 = 0.69314718055994530942;
constexpr unsigned kAll = 0xffffffffu;

struct Num {
  float m;
  int e;
};

struct Sum {
  float m;
  int e;
  float lost;
};

__device__ inline Num none() { return {1.0f, kZero}; }
template <class Number>
__device__ inline Number zero() {
  return {1.0f, kZero};
}
template <class Number>
__device__ inline Number only_if(bool condition, Number a) {
  a.e = condition ? a.e : kZero;
  return a;
}

// 2^e for e <= 127 by writing the exponent's bits; 0 where it is tiny.
__device__ inline float pow2(int e) { return __int_as_float(max(e + 127, 0) << 23); }

__device__ inline Num times(Num a, Num b) { return {a.m * b.m, max(a.e + b.e, kZero)}; }

__device__ inline Num plus(Num a, Num b) {
  int e = max(a.e, b.e);
  return {fmaf(a.m, pow2(a.e - e), b.m * pow2(b.e - e)), e};
}
__device__ inline Num plus(Num a, Num b, Num c) {
  int e = max(max(a.e, b.e), c.e);
  float sum = fmaf(b.m, pow2(b.e - e), c.m * pow2(c.e - e));
  return {fmaf(a.m, pow2(a.e - e), sum), e};
}

// The nearest Num.
__device__ inline Num rounded(Num a) { return a; }
__device__ inline Num rounded(Sum a) { return {a.m + a.lost, a.e}; }

// Products by powers of two are exact. What a sum loses stands beside its chain.
__device__ inline Sum times(Sum a, Num b) {
  return {a.m * b.m, max(a.e + b.e, kZero), a.lost * b.m};
}
__device__ inline Sum plus(Sum a, Sum b) {
  const int e = max(a.e, b.e);
  const float of_a = pow2(a.e - e), of_b = pow2(b.e - e);
  const float x = a.m * of_a, y = b.m * of_b;
  const float most = fmaxf(x, y), rest = fminf(x, y), m = most + rest;
  const float lost = rest - (m - most);
  return {m, e, fmaf(a.lost, of_a, fmaf(b.lost, of_b, lost))};
}
__device__ inline Sum plus(Sum a, Sum b, Sum c) {
  const int e = max(max(a.e, b.e), c.e);
  const float of_a = pow2(a.e - e), of_b = pow2(b.e - e), of_c = pow2(c.e - e);
  const float x = a.m * of_a, y = b.m * of_b, z = c.m * of_c;
  const float more = fmaxf(x, y), most = fmaxf(more, z);
  const float rest = fminf(x, y) + fminf(more, z), m = most + rest;
  const float lost = fmaf(c.lost, of_c, rest - (m - most));
  return {m, e, fmaf(a.lost, of_a, fmaf(b.lost, of_b, lost))};
}

__device__ inline Num renormalised(Num a) {
  int bits = __float_as_int(a.m);
  bool zero = a.e <= kZero;
  float m = __int_as_float((bits & 0x7fffff) | (127 << 23));
  return {zero ? 1.0f : m, zero ? kZero : a.e + (bits >> 23) - 127};
}
__device__ inline Sum renormalised(Sum a) {
  const Num by_m = renormalised(Num{a.m, a.e});
  return {by_m.m, by_m.e, a.e <= kZero ? 0.0f : a.lost * pow2(a.e - by_m.e)};
}

// exp(x - peak), with what the subtraction rounds away; 0 if it is below 2^kZero or if
// x is NaN. Without a branch: frames stay one straight line of code.
__device__ inline Num exp_below(float x, float peak) {
  float d = x - peak;
  float back = x - d;
  float lost = (x - (d + back)) + (back - peak);
  bool some = d > -7.4e8f;
  d = some ? d : 0.0f;
  lost = some ? lost : 0.0f;
  float e = floorf(d * 1.44269504f);
  float f = fmaf(d, 1.44269504f, -e);
  f = fmaf(d, 1.92596299e-8f, fmaf(lost, 1.44269504f, f));
  f = __saturatef(f);  // d beyond 2^23 has no fraction left
  float p = 2.18657848e-4f;
  p = fmaf(p, f, 1.23913318e-3f);
  p = fmaf(p, f, 9.68418643e-3f);
  p = fmaf(p, f, 5.54806292e-2f);
  p = fmaf(p, f, 2.40230456e-1f);
  p = fmaf(p, f, 6.93146944e-1f);
  p = fmaf(p, f, 1.0f);
  return {some ? p : 1.0f, some ? static_cast<int>(e) : kZero};
}

// Scores as they lie in memory. Arithmetic is in float32; a gradient is narrowed once.
enum Kind { kFloat32, kBFloat16, kFloat16 };

#ifdef __CUDACC__
__device__ inline float float_of_half(unsigned short x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
__device__ inline unsigned short half_of_float(float x) {
  unsigned short y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#endif

// Without a branch, as `exp_below`.
__device__ inline float widened(unsigned bits, int kind) {
  const float half = float_of_half((unsigned short)bits);
  const float other = kind == kBFloat16 ? __int_as_float(bits << 16) : half;
  return kind == kFloat32 ? __int_as_float(bits) : other;
}
__device__ inline float score_at(const void* scores, size_t i, int kind) {
  return kind == kFloat32 ? ((const float*)scores)[i]
                          : widened(((const unsigned short*)scores)[i], kind);
}
__device__ inline void write_at(void* gradient, size_t i, float x, int kind) {
  if (kind == kFloat32) {
    ((float*)gradient)[i] = x;
  } else if (kind == kBFloat16) {  // to nearest, ties to even
    unsigned bits = __float_as_int(x);
    bits += 0x7fff + ((bits >> 16) & 1);
    ((unsigned short*)gradient)[i] = (unsigned short)(bits >> 16);
  } else {
    ((unsigned short*)gradient)[i] = half_of_float(x);
  }
}

// The same in all lanes, and known to the compiler to be so: it then sees that a whole
// warp takes a branch, and shuffles below need no detour for lanes that went elsewhere.
__device__ inline int warp_index() {
  return __shfl_sync(kAll, (int)(threadIdx.x / 32), 0);
}
__device__ inline Num from_left(Num a) {
  return {__shfl_up_sync(kAll, a.m, 1), __shfl_up_sync(kAll, a.e, 1)};
}
__device__ inline Sum from_left(Sum a) {
  return {__shfl_up_sync(kAll, a.m, 1), __shfl_up_sync(kAll, a.e, 1),
          __shfl_up_sync(kAll, a.lost, 1)};
}
__device__ inline float warp_sum(float x) {
  for (int k = 16; k; k >>= 1) x += __shfl_xor_sync(kAll, x, k);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int k = 16; k; k >>= 1) x = fmaxf(x, __shfl_xor_sync(kAll, x, k));
  return x;
}

// Read a number if the condition holds, else leave it; one instruction and no branch.
__device__ __forceinline__ void read_if(bool condition, Num& x, const void* from) {
#ifdef __CUDACC__
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %2, 0; @p ld.global.v2.b32 {%0, %1}, [%3]; }"
      : "+f"(x.m), "+r"(x.e)
      : "r"((int)condition), "l"(__cvta_generic_to_global(from)));
#else
  if (condition) x = *(const Num*)from;
#endif
}

__device__ __forceinline__ void write_if(bool condition, float2* to, float2 x) {
#ifdef __CUDACC__
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.v2.f32 [%1], {%2, %3}; }"
               ::"r"((int)condition), "l"(__cvta_generic_to_global(to)), "f"(x.x), "f"(x.y)
               : "memory");
#else
  if (condition) *to = x;
#endif
}

// Barriers, numbered so that a test can take out each in turn.
#ifdef __CUDACC__
__device__ inline void meet_block(int) { asm volatile("bar.sync 0;" ::: "memory"); }
// The threads of one crew of warps meet; crews do not wait for one another. Those who walk
// and those who read come from different places in the code: `bar.sync`, which is
// `barrier.sync.aligned`, would promise that all meet at the same instruction.
__device__ inline void meet_crew(int, int crew, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(crew), "r"(threads) : "memory");
}
#endif

}  // namespace ctc
