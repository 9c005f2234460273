// The gradient of a group of frames, from the occupancies of its places.
//
// Labels are put in order of class, once, so that a class is a run of labels; a segmented
// scan sums each run, however long. Each frame's occupancies are divided by their own
// sum, which cancels rounding that all of them share.
#pragma once
#include "walk.h"

namespace ctc {

constexpr int kWriters = 4;  // warps that write, where they have nothing else to do
constexpr int kRows = 4;     // frames that a warp writes at a time

struct alignas(8) Occupancy {
  float blank, label;
};

struct Writer {
  const Utterance& u;
  const int side;
  const bool normalise;
  const float* __restrict__ rests;
  void* gradient;
  // Of the k-th label in order: its place, and what `mark` adds.
  int* order;
  const int warp, warps, lane;
  static constexpr int kPlace = (1 << 16) - 1;
  static constexpr int kSame = 1 << 16;    // << s: as the label 2^s before it, in its 32
  static constexpr int kGoesOn = 1 << 21;  // as the last of the 32 before
  static constexpr int kLast = 1 << 22;    // of its run

  __device__ void sort() const {
    for (int n = warp * 32 + lane; n < u.N; n += warps * 32) {
      const int id = u.id(side, n);
      int k = 0;
#pragma unroll 8
      for (int m = 0; m < u.N; ++m) {
        const int other = u.id(side, m);
        k += other < id || (other == id && m < n);
      }
      order[k] = n;
    }
  }

  // A turn later, since it reads what other warps sorted. Marks do not change places.
  __device__ void mark() const {
    auto id_at = [&](int k) { return u.id(side, order[k] & kPlace); };
    for (int k = warp * 32 + lane; k < u.N; k += warps * 32) {
      const int id = id_at(k);
      int marks = 0;
      for (int s = 0; s < 5; ++s)
        if (lane >= 1 << s && id_at(k - (1 << s)) == id) marks |= kSame << s;
      if (k >= 32 && id_at(k - lane - 1) == id) marks |= kGoesOn;
      if (k + 1 == u.N || id_at(k + 1) != id) marks |= kLast;
      order[k] |= marks;
    }
  }

  // `count` frames of a walk from `step` on. A warp has every `warps`-th of them.
  template <int F>
  __device__ void write(const Half<F>& half, int step, int count, int places,
                        const Occupancy* occupied) const {
    const int first = half.first(step);
    for (int f = first + warp; f < count; f += warps * kRows) {
      int t[kRows], row[kRows];
#pragma unroll
      for (int j = 0; j < kRows; ++j) {  // the last rows may be none: row < 0
        const int at = f + j * warps;
        t[j] = half.frame(step, min(at, count - 1));
        row[j] = at < count ? at * places : -1;
      }
      write_rows(t, row, occupied);
    }
  }

  __device__ __forceinline__ void write_rows(const int (&t)[kRows], const int (&row)[kRows],
                                             const Occupancy* occupied) const {
    float of_blank[kRows], inverse[kRows], peak[kRows], scale[kRows];
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      peak[j] = u.peaks[t[j]];
      scale[j] = normalise ? 1.0f / (1.0f + rests[t[j]]) : 0.0f;
      of_blank[j] = inverse[j] = 0;
    }
#pragma unroll 2
    for (int n = lane; n <= u.N; n += 32)
#pragma unroll
      for (int j = 0; j < kRows; ++j)
        if (row[j] >= 0) {
          const Occupancy o = occupied[row[j] + n];
          of_blank[j] += o.blank;
          inverse[j] += o.label;
        }
#pragma unroll
    for (int k = 16; k; k >>= 1)
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        of_blank[j] += __shfl_xor_sync(kAll, of_blank[j], k);
        inverse[j] += __shfl_xor_sync(kAll, inverse[j], k);
      }
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      const float total = of_blank[j] + inverse[j];
      inverse[j] = total > 0 ? 1.0f / total : 0.0f;
    }
    auto entry = [&](int j, int id, unsigned bits, float occupancy) {
      const float softmax = expf(widened(bits, u.kind) - peak[j]) * scale[j];
      write_at(gradient, (size_t)t[j] * u.V + id, fmaf(-occupancy, inverse[j], softmax),
               u.kind);
    };
    struct Round {  // 32 labels in order: their marks and classes, of each row
      int mark = 0, id = 0;
      unsigned bits[kRows] = {};  // of the score, at the last label of a class
      float sum[kRows] = {};
    } now;
    float carry[kRows] = {};
    for (int k0 = -32; k0 < u.N; k0 += 32) {
      // A round is on its way while the one before is summed; none before the first.
      const Round here = now;
      const int k = k0 + 32 + lane;
      const bool has = k < u.N;
      now.mark = has ? order[k] : 0;
      now.id = has ? u.id(side, now.mark & kPlace) : 0;
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        const bool asks = has && row[j] >= 0;
        now.sum[j] = asks ? occupied[row[j] + (now.mark & kPlace)].label : 0.0f;
        now.bits[j] = asks && (now.mark & kLast) ? u.bits((size_t)t[j] * u.V + now.id) : 0;
      }
      float sum[kRows];
#pragma unroll
      for (int j = 0; j < kRows; ++j) sum[j] = here.sum[j];
#pragma unroll
      for (int s = 0; s < 5; ++s)
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
          const float left = __shfl_up_sync(kAll, sum[j], 1 << s);
          sum[j] += here.mark & (kSame << s) ? left : 0.0f;
        }
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        sum[j] += here.mark & kGoesOn ? carry[j] : 0.0f;
        carry[j] = __shfl_sync(kAll, sum[j], 31);
        if (row[j] >= 0 && (here.mark & kLast)) entry(j, here.id, here.bits[j], sum[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < kRows; ++j)
      if (lane == j && row[j] >= 0)
        entry(j, u.blank_id, u.bits((size_t)t[j] * u.V + u.blank_id), of_blank[j]);
  }

  // Of a dead utterance: the softmax is there already, and is taken back.
  template <int F>
  __device__ void erase(const Half<F>& half) const {
    for (int i = 0; i < half.length; ++i) {
      const size_t start = (size_t)(half.side ? half.T - 1 - i : i) * u.V;
      for (int v = threadIdx.x; v < u.V; v += blockDim.x)
        write_at(gradient, start + v, 0.0f, u.kind);
    }
  }
};

}  // namespace ctc
