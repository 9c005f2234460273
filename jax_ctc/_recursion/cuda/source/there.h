// There: both halves of each utterance, from its ends to the middle; and where they meet.
#pragma once
#include "crew.h"

namespace ctc {

// What the scores of a half's frames are to be shifted by, summed by one warp; NaN if a
// frame is bad.
template <int F>
__device__ void sum_shifts(const Half<F>& half, const float* __restrict__ peaks,
                           const float* __restrict__ rests, bool normalise, int lane,
                           double* shift_of_half) {
  double shift = 0;
  for (int i = lane; i < half.length; i += 32) {
    const int t = half.side ? half.T - 1 - i : i;
    const float peak = peaks[t], rest = rests[t];
    const bool good = fabsf(peak) < INFINITY && rest < INFINITY;
    shift += !good ? NAN : normalise ? -log1pf(rest) : peak;
  }
  for (int k = 16; k; k >>= 1) shift += __shfl_xor_sync(kAll, shift, k);
  if (lane == 0) *shift_of_half = shift;
}

// A block a half. Keeps the column before each group of frames; the one in the middle, and
// after it what its sums lost. One warp has no part in this: it sums shifts.
template <class L>
__device__ void there(const void* __restrict__ scores, const float* __restrict__ peaks,
                      const float* __restrict__ rests, const int* __restrict__ ids,
                      const unsigned char* __restrict__ skips,
                      const int* __restrict__ lengths, const int* __restrict__ counts,
                      const int* __restrict__ dims, double* __restrict__ shifts,
                      Pair* __restrict__ kept) {
  __shared__ Shared<L> shared;
  const Dims d(dims);
  const int b = blockIdx.x / 2, side = blockIdx.x % 2;
  const int warps = L::warps(d.U + 1), warp = warp_index(), lane = threadIdx.x % 32;
  const Utterance u(scores, peaks, ids, skips, lengths, counts, d, b);
  const Half<L::F> half(side, u.T);
  kept += (size_t)blockIdx.x * d.kept();
  if (warp == (L::kApart ? warps + kReaders : 0)) {
    const size_t row = (size_t)b * d.frames;
    sum_shifts(half, peaks + row, rests + row, d.normalise, lane, shifts + blockIdx.x);
    if (L::kApart) return;
  }
  if (u.N < 0) return;
  if (L::kApart && warp >= warps) {
    Crew<L> crew(shared, u, side, half, 1, warps, warp, lane, false, true);
    crew.steps(0, half.steps, 1, half.steps, true, [](int) {});
    return;
  }
  Walker<L> walker(u, side, warp, lane);
  walker.start();
  Crew<L> crew(shared, u, side, half, 1, warps, warp, lane, true, !L::kApart);
  Pair *row = kept, *middle = kept + (size_t)d.Q * u.places;
  int left = 0;  // steps of this group
  crew.steps(0, half.steps, 1, half.steps, true, [&](int c) {
    if (left == 0) {
      walker.store(row);
      row += u.places;
      left = d.group / L::F;
    }
    --left;
    walker.step(shared.edges, crew.turn, L::is_due(c), [&] {
#pragma unroll
      for (int f = 0; f < L::F; ++f)
        walker.frame(crew.emissions(f), [](int, const auto&, const auto&) {});
    });
  });
  walker.store(middle);
  walker.store_lost((float2*)(middle + u.places));
}

// What meets in the middle, in double: (m, e) as a Num.
struct Wide {
  double m;
  int e;
};
__device__ inline Wide times(Wide a, Wide b) { return {a.m * b.m, max(a.e + b.e, kZero)}; }
__device__ inline Wide plus(Wide a, Wide b) {
  const int e = max(a.e, b.e);
  return {a.m * pow2(a.e - e) + b.m * pow2(b.e - e), e};
}

// Where two walks met, by one warp: log Z, and in `scale` its exponent without shifts.
struct Met {
  float log_z;
  int scale;
  bool alive;
};

__device__ inline Met meet(const Pair* __restrict__ kept, const double* __restrict__ shifts,
                           const unsigned char* __restrict__ skips, int N, const Dims& d,
                           int b, int lane) {
  const int places = d.U + 1;
  const Pair* left = kept + (size_t)(2 * b) * d.kept() + (size_t)d.Q * places;
  const Pair* right = left + d.kept();
  skips += (size_t)b * d.U;
  auto blank = [&](const Pair* row, int n) {
    return Wide{row[n].bm + (double)((const float2*)(row + places))[n].x, row[n].be};
  };
  auto label = [&](const Pair* row, int n) {
    if (n < 0) return Wide{1, kZero};
    return Wide{row[n].lm + (double)((const float2*)(row + places))[n].y, row[n].le};
  };
  Wide sum = {1, kZero};
#pragma unroll 1
  for (int n = lane; n <= N; n += 32) {
    // In the mirror blank[n] is blank'[j], label[n] is label'[j - 1].
    const int j = N - n;
    const Wide before = label(right, j - 1);
    sum = plus(sum, times(blank(left, n), plus(blank(right, j), before)));
    if (n == N) continue;
    Wide into = plus(before, blank(right, j - 1));
    if (n + 1 < N && skips[n + 1]) into = plus(into, label(right, j - 2));
    sum = plus(sum, times(label(left, n), into));
  }
#pragma unroll 1
  for (int k = 16; k; k >>= 1) {
    const Wide other = {__shfl_xor_sync(kAll, sum.m, k), __shfl_xor_sync(kAll, sum.e, k)};
    sum = plus(sum, other);
  }
  sum = {__shfl_sync(kAll, sum.m, 0), __shfl_sync(kAll, sum.e, 0)};
  const double shift = shifts[2 * b] + shifts[2 * b + 1];
  float value = (float)fma((double)sum.e, kLn2, log(sum.m) + shift);
  const float cutoff = (float)((kZero + kGuard) * kLn2);
  if (N < 0 || sum.e <= kZero + kGuard || value < cutoff) value = -INFINITY;
  if (shift != shift) value = NAN;
  return {value, sum.e, fabsf(value) < INFINITY};
}

__device__ inline void only_meet(const unsigned char* __restrict__ skips,
                                 const int* __restrict__ counts,
                                 const int* __restrict__ dims,
                                 const double* __restrict__ shifts,
                                 const Pair* __restrict__ kept,
                                 float* __restrict__ log_z) {
  const Dims d(dims);
  const int b = blockIdx.x, lane = threadIdx.x % 32;
  const Met met = meet(kept, shifts, skips, counts[b], d, b, lane);
  if (lane == 0) log_z[b] = met.log_z;
}

}  // namespace ctc
