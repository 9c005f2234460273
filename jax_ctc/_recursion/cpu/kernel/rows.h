// One frame of the lattice in extended range, and how it moves to the next.
//
//   blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
//   label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])
//
// Exponents follow a max-plus recursion of their own, and significands ride on it: the
// largest term enters whole and an emission has a significand within [0.94, 2.13],
// so that they grow at most 6.4-fold a frame. Renormalised every kRenormalise = 16
// frames, alpha times beta stays below 2^90.
//
// A row has `width` places for each of blank and label, of which the first N + 1 and N
// count. What stands in the others is reached from these, but never comes back.
//
// Where a model is sure, one way is nearly all of the sum, and what the others add to
// it in a frame is below the last bit of a float: over a thousand frames as much would
// be lost as the loss is. So alpha and beta have a low part too, and are m + low.
#pragma once

#include <algorithm>

#include "numbers.h"

namespace jax_ctc {

constexpr int kPad = 16;  // width is a multiple; and places apart that may be read
constexpr int kRenormalise = 16;
constexpr int32_t kAnything = std::numeric_limits<int32_t>::max();

// Significands and exponents: pad, blank, pad, label, pad; both point at blank[0].
struct Row {
  float* m;
  int32_t* e;
};
inline int64_t row_size(int width) { return 2 * int64_t(width) + 3 * kPad; }
JAX_CTC_INLINE int label_at(int width) { return width + kPad; }

inline void clear(float* m, int32_t* e, int from, int to) {
  for (int n = from; n < to; ++n) m[n] = 1, e[n] = kZero;
}

// Make every state 0, the pads too.
inline void clear(Row row, int width) {
  clear(row.m, row.e, -kPad, 2 * width + 2 * kPad);
}

inline void clear_pads(Row row, int width) {
  clear(row.m, row.e, -kPad, 0);
  clear(row.m, row.e, width, width + kPad);
  clear(row.m, row.e, 2 * width + kPad, 2 * width + 2 * kPad);
}

// A significand back to [1, 2), with its low part. At or below `zero_limit` is 0: what
// such numbers were added to may have been a 0, whose exponent is not so much smaller.
JAX_CTC_INLINE void renormalise(float& m, int32_t& e, float& low, int32_t zero_limit) {
  const int32_t bits = bits_as<int32_t>(m), exponent = (bits >> 23) - 127;
  const bool is_zero = e <= zero_limit;
  e = is_zero ? kZero : e + exponent;
  m = bits_as<float>(is_zero ? 0x3f800000 : (bits & 0x7fffff) | 0x3f800000);
  low = is_zero ? 0 : low * pow2(-exponent);
}

JAX_CTC_KERNEL void renormalise(float* __restrict m, int32_t* __restrict e,
                                int32_t zero_limit, int width) {
  const int size = 2 * width + kPad;
#pragma omp simd
  for (int n = 0; n < size; ++n) {
    float low = 0;
    renormalise(m[n], e[n], low, zero_limit);
  }
}

JAX_CTC_KERNEL void renormalise(float* __restrict m, int32_t* __restrict e,
                                float* __restrict low, int32_t zero_limit, int width) {
  const int size = 2 * width + kPad;
#pragma omp simd
  for (int n = 0; n < size; ++n) renormalise(m[n], e[n], low[n], zero_limit);
}

// largest + rest, and what rounding took from it: all of it where the largest is no
// less than the rest, as it is where one way leads.
JAX_CTC_INLINE float add(float largest, float rest, float* low) {
  const float sum = largest + rest;
  *low = rest - (sum - largest);
  return sum;
}

// The sum of ways and of their low parts, and what rounding took from it, as above.
JAX_CTC_INLINE float add(float a, float b, float low, float* rounded) {
  return add(max(a, b), min(a, b) + low, rounded);
}
JAX_CTC_INLINE float add(float a, float b, float c, float low, float* rounded) {
  const float larger = max(a, b);
  return add(max(larger, c), min(a, b) + min(larger, c) + low, rounded);
}

// alpha[t-1] -> alpha[t], with low parts or without them. y: of each label, and at
// place N and after it the blank's. skip[n]: kAnything where label[n-1] may step
// straight to label[n], else kZero.
template <bool kIsCareful>
JAX_CTC_INLINE void alpha_step_as(
    const float* __restrict m, const int32_t* __restrict e, const float* __restrict low,
    float* __restrict to_m, int32_t* __restrict to_e, float* __restrict to_low,
    const float* __restrict y_m, const int32_t* __restrict y_e,
    const int32_t* __restrict skip, int num_labels, int width) {
  const int label = label_at(width);
  const float *bm = m, *lm = m + label, *bl = low, *ll = low + label;
  const int32_t *be = e, *le = e + label;
  float *to_bm = to_m, *to_lm = to_m + label, *to_bl = to_low, *to_ll = to_low + label;
  int32_t *to_be = to_e, *to_le = to_e + label;
  const float blank_m = y_m[num_labels];
  const int32_t blank_e = y_e[num_labels];
#pragma omp simd
  for (int n = 0; n < width; ++n) {
    const int32_t of_blank = max(be[n], le[n - 1]);
    const float stay = pow2(be[n] - of_blank), move = pow2(le[n - 1] - of_blank);
    const float stayed = bm[n] * stay, moved = lm[n - 1] * move;
    const int32_t skip_e = min(le[n - 1], skip[n]);
    const int32_t of_label = max(max(le[n], be[n]), skip_e);
    const float keep = pow2(le[n] - of_label), enter = pow2(be[n] - of_label),
                jump = pow2(skip_e - of_label);
    const float kept = lm[n] * keep, entered = bm[n] * enter, jumped = lm[n - 1] * jump;
    if constexpr (kIsCareful) {
      float rounded;
      const float blank = add(stayed, moved, bl[n] * stay + ll[n - 1] * move, &rounded);
      to_bm[n] = blank * blank_m;
      to_bl[n] = rounded * blank_m;
      const float sum = add(kept, entered, jumped,
                            ll[n] * keep + bl[n] * enter + ll[n - 1] * jump, &rounded);
      to_lm[n] = sum * y_m[n];
      to_ll[n] = rounded * y_m[n];
    } else {
      to_bm[n] = (stayed + moved) * blank_m;
      to_lm[n] = (kept + entered + jumped) * y_m[n];
    }
    to_be[n] = max(of_blank + blank_e, kZero);
    to_le[n] = max(of_label + y_e[n], kZero);
  }
}

JAX_CTC_KERNEL void careful_alpha_step(
    const float* __restrict m, const int32_t* __restrict e, const float* __restrict low,
    float* __restrict to_m, int32_t* __restrict to_e, float* __restrict to_low,
    const float* __restrict y_m, const int32_t* __restrict y_e,
    const int32_t* __restrict skip, int num_labels, int width) {
  alpha_step_as<true>(m, e, low, to_m, to_e, to_low, y_m, y_e, skip, num_labels, width);
}

JAX_CTC_KERNEL void alpha_step(const float* __restrict m, const int32_t* __restrict e,
                               float* __restrict to_m, int32_t* __restrict to_e,
                               const float* __restrict y_m,
                               const int32_t* __restrict y_e,
                               const int32_t* __restrict skip, int num_labels,
                               int width) {
  alpha_step_as<false>(m, e, nullptr, to_m, to_e, nullptr, y_m, y_e, skip, num_labels,
                       width);
}

// The same for the most probable path. back[n]: how many states back it comes from, to
// blank[n] in the lower two bits and to label[n] in the next two. Of equally probable
// ways, stay goes before move, and move before skip.
JAX_CTC_KERNEL void best_step(const float* __restrict m, const int32_t* __restrict e,
                              float* __restrict to_m, int32_t* __restrict to_e,
                              const float* __restrict y_m,
                              const int32_t* __restrict y_e,
                              const int32_t* __restrict skip, int32_t* __restrict back,
                              int num_labels, int width) {
  const int label = label_at(width);
  const float *bm = m, *lm = m + label;
  const int32_t *be = e, *le = e + label;
  float *to_bm = to_m, *to_lm = to_m + label;
  int32_t *to_be = to_e, *to_le = to_e + label;
  const float blank_m = y_m[num_labels];
  const int32_t blank_e = y_e[num_labels];
#pragma omp simd
  for (int n = 0; n < width; ++n) {
    const int32_t of_blank = max(be[n], le[n - 1]);
    const float blank_stay = bm[n] * pow2(be[n] - of_blank);
    const float blank_move = lm[n - 1] * pow2(le[n - 1] - of_blank);
    const int32_t blank_back = blank_move > blank_stay ? 1 : 0;
    to_bm[n] = (blank_move > blank_stay ? blank_move : blank_stay) * blank_m;
    to_be[n] = max(of_blank + blank_e, kZero);
    const int32_t skip_e = min(le[n - 1], skip[n]);
    const int32_t of_label = max(max(le[n], be[n]), skip_e);
    float best = lm[n] * pow2(le[n] - of_label);
    const float move = bm[n] * pow2(be[n] - of_label);
    int32_t label_back = move > best ? 4 : 0;
    best = move > best ? move : best;
    const float jump = lm[n - 1] * pow2(skip_e - of_label);
    label_back = jump > best ? 8 : label_back;
    best = jump > best ? jump : best;
    to_lm[n] = best * y_m[n];
    to_le[n] = max(of_label + y_e[n], kZero);
    back[n] = blank_back | label_back;
  }
}

// The row of the same lattice read from its other end, times 2^-exponent: the last
// label comes first, and what was reached from the left is now to be reached from the
// right.
inline void mirror(Row from, const float* from_low, Row to, float* to_low,
                   int num_labels, int32_t exponent, int width) {
  clear(to, width);
  std::fill_n(to_low - kPad, row_size(width), 0.0f);
  const int label = label_at(width);
  const auto copy = [&](int target, int source) {
    const int32_t e = from.e[source];
    to.m[target] = from.m[source];
    to_low[target] = from_low[source];
    to.e[target] = e == kZero ? kZero : max(e - exponent, kZero);
  };
  for (int n = 0; n <= num_labels; ++n) copy(n, num_labels - n);
  for (int n = 0; n < num_labels; ++n) copy(label + n, label + num_labels - 1 - n);
}

// beta[t+1] * y[t+1] -> beta[t] * y[t]; and alpha[t] * beta[t], of which the sum is
// returned: of each label in `product`, of all blanks in product[width].
JAX_CTC_KERNEL float beta_step(const float* __restrict alpha_m,
                               const int32_t* __restrict alpha_e,
                               const float* __restrict m, const int32_t* __restrict e,
                               const float* __restrict low, float* __restrict to_m,
                               int32_t* __restrict to_e, float* __restrict to_low,
                               const float* __restrict y_m,
                               const int32_t* __restrict y_e,
                               const int32_t* __restrict skip,
                               float* __restrict product, int num_labels, int width) {
  const int label = label_at(width);
  const float *bm = m, *lm = m + label, *bl = low, *ll = low + label;
  const int32_t *be = e, *le = e + label;
  const float *alpha_bm = alpha_m, *alpha_lm = alpha_m + label;
  const int32_t *alpha_be = alpha_e, *alpha_le = alpha_e + label;
  float *to_bm = to_m, *to_lm = to_m + label, *to_bl = to_low, *to_ll = to_low + label;
  int32_t *to_be = to_e, *to_le = to_e + label;
  const float blank_m = y_m[num_labels];
  const int32_t blank_e = y_e[num_labels];
  float blanks = 0, labels = 0;
#pragma omp simd reduction(+ : blanks, labels)
  for (int n = 0; n < width; ++n) {
    float rounded;
    const int32_t of_blank = max(be[n], le[n]);
    const float stay = pow2(be[n] - of_blank), move = pow2(le[n] - of_blank);
    const float blank =
        add(bm[n] * stay, lm[n] * move, bl[n] * stay + ll[n] * move, &rounded);
    blanks += alpha_bm[n] * blank * pow2(alpha_be[n] + of_blank);
    to_bm[n] = blank * blank_m;
    to_bl[n] = rounded * blank_m;
    to_be[n] = max(of_blank + blank_e, kZero);
    const int32_t skip_e = min(le[n + 1], skip[n + 1]);
    const int32_t of_label = max(max(le[n], be[n + 1]), skip_e);
    const float keep = pow2(le[n] - of_label), enter = pow2(be[n + 1] - of_label),
                jump = pow2(skip_e - of_label);
    const float sum =
        add(lm[n] * keep, bm[n + 1] * enter, lm[n + 1] * jump,
            ll[n] * keep + bl[n + 1] * enter + ll[n + 1] * jump, &rounded);
    product[n] = alpha_lm[n] * sum * pow2(alpha_le[n] + of_label);
    labels += product[n];
    to_lm[n] = sum * y_m[n];
    to_ll[n] = rounded * y_m[n];
    to_le[n] = max(of_label + y_e[n], kZero);
  }
  product[width] = blanks;
  return blanks + labels;
}

}  // namespace jax_ctc
