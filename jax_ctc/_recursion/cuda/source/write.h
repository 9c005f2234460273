// The gradient of a group of frames, from the occupancies of its places.
//
// Labels are put in order of class, once, so that a class is a run of labels. A warp takes
// some frames at a time; as many lanes as there are to spare sum a run. Each frame's
// occupancies are divided by their own sum, which cancels rounding that all of them share.
#pragma once
#include "utterance.h"

namespace ctc {

constexpr int kWriters = 4;  // warps, where they have nothing else to do

using Occupancy = float2;  // of a place: x of its blank, y of its label

// A warp writes so many frames at a time; where lanes have several labels, registers are
// dear.
template <int kRows>
struct Writer {
  const Utterance& u;
  const int side;
  const bool normalise;
  const float* __restrict__ rests;
  void* gradient;
  // The labels' places in order of class; where the run of each class starts, and which
  // class it is; how many runs there are. The blank is one more run, an empty one.
  int *order, *starts, *classes, *count;
  const int warp, warps, lane;

  __device__ Writer(const Utterance& u_, int side_, bool normalise_, const float* rests_,
                    void* gradient_, int* scratch, int warp_, int warps_, int lane_)
      : u(u_), side(side_), normalise(normalise_), rests(rests_), gradient(gradient_),
        order(scratch), starts(order + u.places), classes(starts + u.places + 1),
        count(classes + u.places), warp(warp_), warps(warps_), lane(lane_) {}
  __device__ static size_t scratch(int places) { return 3 * (size_t)places + 2; }

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

  // A turn later, since it reads what other warps sorted; by one warp.
  __device__ void find_runs() const {
    int runs = 0;
    for (int k0 = 0; k0 < u.N; k0 += 32) {
      const int k = k0 + lane;
      const int id = k < u.N ? u.id(side, order[k]) : -1;
      const bool begins = k < u.N && (k == 0 || u.id(side, order[k - 1]) != id);
      const unsigned all = __ballot_sync(kAll, begins);
      if (begins) {
        const int run = runs + __popc(all & ((1u << lane) - 1));
        starts[run] = k;
        classes[run] = id;
      }
      runs += __popc(all);
    }
    if (lane > 0) return;
    starts[runs] = u.N;
    starts[runs + 1] = u.N;
    classes[runs] = u.blank_id;
    *count = runs + 1;
  }

  // `frames` frames of a walk from `step` on. A warp has every `warps`-th of them.
  template <int F>
  __device__ void write(const Half<F>& half, int step, int frames,
                        const Occupancy* occupied) const {
    for (int f = max(half.first(step), 0) + warp; f < frames; f += warps * kRows) {
      int t[kRows], row[kRows];
#pragma unroll
      for (int j = 0; j < kRows; ++j) {  // the last rows may be none: row < 0
        const int at = f + j * warps;
        t[j] = half.frame(step, min(at, frames - 1));
        row[j] = at < frames ? at * u.places : -1;
      }
      write_rows(t, row, occupied);
    }
  }

  __device__ __forceinline__ void write_rows(const int (&t)[kRows], const int (&row)[kRows],
                                             const Occupancy* occupied) const {
    float of_blank[kRows] = {}, inverse[kRows] = {};
#pragma unroll 2
    for (int n = lane; n <= u.N; n += 32)
#pragma unroll
      for (int j = 0; j < kRows; ++j)
        if (row[j] >= 0) {
          const Occupancy o = occupied[row[j] + n];
          of_blank[j] += o.x;
          inverse[j] += o.y;
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

    const int runs = *count;
    int lanes = 1;  // of a run
    while (2 * lanes * runs <= 32) lanes *= 2;
    const int mine = lane & (lanes - 1);
    for (int r0 = 0; r0 < runs; r0 += 32 / lanes) {
      const int r = r0 + lane / lanes;
      const bool has = r < runs;
      const int end = has ? starts[r + 1] : 0, id = has ? classes[r] : 0;
      float sum[kRows];
      unsigned bits[kRows];
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        sum[j] = r == runs - 1 && mine == 0 ? of_blank[j] : 0.0f;
        if (row[j] >= 0) bits[j] = u.bits((size_t)t[j] * u.V + id);
      }
#pragma unroll 2
      for (int k = (has ? starts[r] : 0) + mine; k < end; k += lanes) {
        const int n = order[k];
#pragma unroll
        for (int j = 0; j < kRows; ++j)
          if (row[j] >= 0) sum[j] += occupied[row[j] + n].y;
      }
      for (int k = lanes / 2; k; k >>= 1)
#pragma unroll
        for (int j = 0; j < kRows; ++j) sum[j] += __shfl_xor_sync(kAll, sum[j], k);
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        if (row[j] < 0) continue;
        float softmax = 0;
        if (normalise)
          softmax = expf(widened(bits[j], u.kind) - u.peaks[t[j]]) / (1.0f + rests[t[j]]);
        if (has && mine == 0)
          write_at(gradient, (size_t)t[j] * u.V + id, fmaf(-sum[j], inverse[j], softmax),
                   u.kind);
      }
    }
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
