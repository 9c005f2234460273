// Where the two halves of an utterance meet: log p is the sum of alpha * beta there.
//
// It is taken once an utterance, in double, from both parts of both halves' alpha. The
// right half reads the lattice from its other end: its blank[N - n] is blank[n] here.
#pragma once

#include <algorithm>

#include "rows.h"

namespace jax_ctc {

// A half's alpha after its last frame.
struct Alpha {
  Row row;
  const float* low;

  bool is_zero(int at) const { return row.e[at] == kZero; }
  double significand(int at) const { return double(row.m[at]) + double(low[at]); }
};

// m * 2^e; e is 2 * kZero for a sum of zeros.
struct Sum {
  double m;
  int32_t e;
};

// Visit each way over the middle: the place where it is on the left, and on the right.
template <typename F>
void each_way(const int32_t* skip, int num_labels, int width, F visit) {
  const int N = num_labels, left = label_at(width), right = left + N - 1;
  for (int n = 0; n <= N; ++n) {
    visit(n, N - n);
    if (n == N) break;
    visit(n, right - n);
    visit(left + n, right - n);
    visit(left + n, N - n - 1);
    if (skip[n + 1] == kAnything) visit(left + n, right - n - 1);
  }
}

inline Sum sum_in_middle(Alpha left, Alpha right, const int32_t* skip, int num_labels,
                         int width) {
  Sum sum{0, 2 * kZero};
  // One that is 0 makes the product 0, however large the other.
  const auto is_zero = [&](int i, int k) {
    return left.is_zero(i) || right.is_zero(k);
  };
  each_way(skip, num_labels, width, [&](int i, int k) {
    if (!is_zero(i, k)) sum.e = std::max(sum.e, left.row.e[i] + right.row.e[k]);
  });
  each_way(skip, num_labels, width, [&](int i, int k) {
    if (is_zero(i, k)) return;
    sum.m += left.significand(i) * right.significand(k) *
             pow2_double(left.row.e[i] + right.row.e[k] - sum.e);
  });
  return sum;
}

}  // namespace jax_ctc
