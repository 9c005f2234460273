// One frame's scores: what they are normalised by, and what the lattice needs of them.
//
//   peak = max_v x[v]       rest = sum of exp(x[v] - peak) over all classes but the
//   peak log p(v) = x[v] - peak - log(1 + rest)
//
// Of the classes that share the peak, all but the first belong to the rest. Kept apart
// from the 1, a rest of 1e-9 keeps all its digits; and log(1 + rest) is summed up as
// the logarithm of a product in double.
#pragma once

#include <algorithm>
#include <cmath>

#include "numbers.h"

namespace jax_ctc {

constexpr int kSumOf = 256;  // so many terms are summed in float32, the sums in double

// Find the peak; false if a score is NaN or +inf, or all are -inf.
template <typename S>
JAX_CTC_INLINE bool peak_of_row(const S* __restrict x, int size, float* peak) {
  float largest = -kInf;
  int32_t is_bad = 0;
#pragma omp simd reduction(max : largest) reduction(| : is_bad)
  for (int v = 0; v < size; ++v) {
    const float f = load(x[v]);
    largest = f > largest ? f : largest;
    is_bad |= f < kInf ? 0 : 1;
  }
  *peak = largest;
  return !is_bad && largest > -kInf;
}

// Have memory send what will be read soon.
template <typename S>
JAX_CTC_INLINE void fetch(const S* x, int size) {
  constexpr int kLine = 64 / sizeof(S);
  for (int v = 0; v < size; v += kLine) __builtin_prefetch(x + v);
}

// exp(x - peak); returns their sum less 1, for the peak. next: the row to be read after
// this one, or null: memory is idle while exponentials are computed, and slow to begin.
template <typename S>
JAX_CTC_INLINE float exps_of_row(const S* __restrict x, const S* next, float peak,
                                 float* __restrict to, int size) {
  double rest = 0;
  int32_t below = 0;
  for (int start = 0; start < size; start += kSumOf) {
    const int end = size - start < kSumOf ? size : start + kSumOf;
    if (next) fetch(next + start, end - start);
    float sum = 0;
#pragma omp simd reduction(+ : sum, below)
    for (int v = start; v < end; ++v) {
      const float f = load(x[v]), p = exp_of(f - peak);
      to[v] = p;
      sum += f < peak ? p : 0.0f;
      below += f < peak ? 1 : 0;
    }
    rest += double(sum);
  }
  return float(rest + (size - 1 - below));
}

template <typename S>
JAX_CTC_INLINE void scale_row(const float* __restrict x, float scale, S* __restrict to,
                              int size) {
#pragma omp simd
  for (int v = 0; v < size; ++v) store(&to[v], x[v] * scale);
}

// The scores of the needed classes, and the largest of them.
template <typename S>
JAX_CTC_INLINE float gather_row(const S* __restrict x, const int32_t* __restrict ids,
                                float* __restrict to, int size) {
  float best = -kInf;
#pragma omp simd reduction(max : best)
  for (int n = 0; n < size; ++n) {
    const float f = load(x[ids[n]]);
    to[n] = f;
    best = f > best ? f : best;
  }
  return best;
}

// Compiled for several processors, a template cannot be: so here are its instances.
#define JAX_CTC_FOR_SCORES(S)                                                        \
  JAX_CTC_KERNEL bool find_peak(const S* x, int size, float* peak) {                 \
    return peak_of_row(x, size, peak);                                               \
  }                                                                                  \
  JAX_CTC_KERNEL float exps(const S* x, const S* next, float peak, float* to,        \
                            int size) {                                              \
    return exps_of_row(x, next, peak, to, size);                                     \
  }                                                                                  \
  JAX_CTC_KERNEL void scale(const float* x, float factor, S* to, int size) {         \
    scale_row(x, factor, to, size);                                                  \
  }                                                                                  \
  JAX_CTC_KERNEL float gather(const S* x, const int32_t* ids, float* to, int size) { \
    return gather_row(x, ids, to, size);                                             \
  }
JAX_CTC_FOR_SCORES(float)
JAX_CTC_FOR_SCORES(BFloat16)
JAX_CTC_FOR_SCORES(Float16)
#undef JAX_CTC_FOR_SCORES

// exp(x - best) in extended range, m in place of x.
JAX_CTC_KERNEL void split(float* __restrict m, float best, int32_t* __restrict e,
                          int size) {
#pragma omp simd
  for (int n = 0; n < size; ++n) {
    float significand;
    int32_t exponent;
    split(m[n] - best, &significand, &exponent);
    m[n] = significand;
    e[n] = exponent;
  }
}

// from - part / whole, and part is 0 again.
JAX_CTC_KERNEL void subtract(float* __restrict from, float* __restrict part,
                             float whole, int size) {
#pragma omp simd
  for (int v = 0; v < size; ++v) {
    from[v] -= part[v] / whole;
    part[v] = 0;
  }
}

// The sum over frames of what was taken out of the lattice's emissions, in double.
class Shift {
 public:
  // One frame, taken as it is.
  void add(float best, float peak) {
    // Scores may lie further apart than float32 reaches.
    sum_ += std::max(double(best) - double(peak), kLeast);
  }
  // Its normaliser. 1 + rest is below 2^32, so that 16 of them fit into a double.
  void divide(float rest) {
    product_ *= 1 + double(rest);
    if (++count_ % 16 == 0) fold();
  }
  double total() {
    fold();
    return sum_;
  }

 private:
  static constexpr double kLeast = -1e30;  // far beyond what counts as possible
  void fold() {
    sum_ -= std::log(product_);
    product_ = 1;
  }
  double sum_ = 0, product_ = 1;
  int count_ = 0;
};

}  // namespace jax_ctc
