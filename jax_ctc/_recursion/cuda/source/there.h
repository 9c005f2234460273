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
  const float2 *left_lost = (const float2*)(left + places),
               *right_lost = (const float2*)(right + places);
  skips += (size_t)b * d.U;
  // Each way through the middle: a state from the left, and one from the right that it
  // stays or steps to. In the mirror blank[n] is blank'[j], label[n] is label'[j - 1].
  auto each_way = [&](auto visit) {
    for (int n = lane; n <= N; n += 32) {
      const int j = N - n;
      auto to_blank = [&](int e, double m, int i) {
        visit(e + right[i].be, m * (right[i].bm + (double)right_lost[i].x));
      };
      auto to_label = [&](int e, double m, int i) {
        if (i >= 0) visit(e + right[i].le, m * (right[i].lm + (double)right_lost[i].y));
      };
      const double blank = left[n].bm + (double)left_lost[n].x;
      const double label = left[n].lm + (double)left_lost[n].y;
      to_blank(left[n].be, blank, j);
      to_label(left[n].be, blank, j - 1);
      if (n == N) continue;
      to_label(left[n].le, label, j - 1);
      to_blank(left[n].le, label, j - 1);
      if (j > 1 && skips[n + 1]) to_label(left[n].le, label, j - 2);
    }
  };
  int e = 2 * kZero;
  each_way([&](int of_way, double) { e = max(e, of_way); });
  for (int k = 16; k; k >>= 1) e = max(e, __shfl_xor_sync(kAll, e, k));
  double sum = 0;
  each_way([&](int of_way, double m) { sum += m * pow2(max(of_way - e, -127)); });
  for (int k = 16; k; k >>= 1) sum += __shfl_xor_sync(kAll, sum, k);
  const double shift = shifts[2 * b] + shifts[2 * b + 1];
  float value = (float)fma((double)e, kLn2, log(sum) + shift);
  const float cutoff = (float)((kZero + kGuard) * kLn2);
  if (N < 0 || e <= kZero + kGuard || value < cutoff) value = -INFINITY;
  if (shift != shift) value = NAN;
  return {value, e, fabsf(value) < INFINITY};
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
