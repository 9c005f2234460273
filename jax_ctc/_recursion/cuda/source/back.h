// Back: each walk goes on through the other's half, meets what the other brought there,
// and the gradient is written. Three crews of warps, in turns of a group of frames:
//
//   again    walks the other's group g - 1 once more, from the column that was kept, and
//            lays down the ways into each place (its beta, seen from here)
//   onward   walks group g the other way; times what was laid down: occupancies
//   write    the gradient of group g + 1
//
// One crew's output is the next one's input a turn later, so the three take the time of
// one. With many labels the crews are the same warps, which do one after the other.
#pragma once
#include "there.h"

namespace ctc {

constexpr int kWriters = 4;  // warps that write the gradient, where crews are apart
constexpr int kRows = 4;     // frames that a warp writes at a time

struct alignas(8) Occupancy {
  float blank, label;
};

template <int R>
struct Order {  // labels by class, so that a class is a run, which a segmented scan sums
  short place[Layout<R>::kPlaces];
  int id[Layout<R>::kPlaces];
};

template <int R>
__device__ void sort_labels(Order<R>& order, const Utterance& u, int side,
                            int thread, int threads) {
  for (int n = thread; n < u.N; n += threads) {
    const int id = u.id(side, n);
    int k = 0;
#pragma unroll 4
    for (int m = 0; m < u.N; ++m) {
      const int other = u.id(side, m);
      k += other < id || (other == id && m < n);
    }
    order.place[k] = (short)n;
    order.id[k] = id;
  }
}

// One step of the other's walk once more; what was laid down is in its own places.
template <int R>
__device__ __forceinline__ void again_step(Column<R>& at, const Places<R>& who,
                                           const Emissions<R>& p,
                                           Pair* __restrict__ row, int places, int lane) {
  constexpr int F = Layout<R>::kFrames;
#pragma unroll
  for (int f = 0; f < F; ++f) {
    const Column<R> into = ways(at, who, lane);
    store(row + (size_t)f * places, into, who, places);
    at = emit(into, p.blank_of(f), p.label[f]);
  }
}

// What the other laid down where blank and label meet it: blank j and label j - 1.
__device__ __forceinline__ void meet_place(Num& blank, Num& label, const Pair* row, int j) {
  blank = label = none();
  if (j >= 0) blank = {row[j].bm, row[j].be};
  if (j >= 1) label = {row[j - 1].lm, row[j - 1].le};
}

// One step onward, through the other's frames from the last: place n meets the other's
// blank N - n and label N - 1 - n.
template <int R>
__device__ __forceinline__ void onward_step(Column<R>& at, const Places<R>& who,
                                            const Emissions<R>& p, const Pair* row,
                                            Occupancy* __restrict__ occupied, int places,
                                            int N, int scale, int lane) {
  constexpr int F = Layout<R>::kFrames;
  Num blank[F][R], label[F][R];
  if (Layout<R>::kApart)  // asked for before they are needed
#pragma unroll
    for (int f = F - 1; f >= 0; --f)
#pragma unroll
      for (int r = 0; r < R; ++r)
        meet_place(blank[f][r], label[f][r], row + (size_t)f * places, N - (who.n + r));
#pragma unroll
  for (int f = F - 1; f >= 0; --f) {
    at = emit(ways(at, who, lane), p.blank_of(f), p.label[f]);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (!Layout<R>::kApart)
        meet_place(blank[f][r], label[f][r], row + (size_t)f * places, N - (who.n + r));
      const Num b = times(at.blank[r], blank[f][r]), l = times(at.label[r], label[f][r]);
      if (who.owns && who.n + r < places)
        occupied[(size_t)f * places + who.n + r] = {b.m * pow2(min(b.e - scale, 80)),
                                                    l.m * pow2(min(l.e - scale, 80))};
    }
  }
}

// Rows of the gradient by one warp: softmax - occupancy, where a label or blank is.
// Each row's occupancies are divided by their own sum, which cancels rounding that all
// of them share. Other classes have their softmax already.
template <int R>
__device__ __forceinline__ void write_rows(const Utterance& u,
                                           const float* __restrict__ rests,
                                           void* __restrict__ gradient,
                                           const Order<R>& order,
                                           const Occupancy* occupied, const int (&t)[kRows],
                                           const bool (&live)[kRows], int places,
                                           bool normalise, int lane) {
  float of_blank[kRows], inverse[kRows], peak[kRows], scale[kRows], carry[kRows];
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    peak[j] = u.peaks[t[j]];
    scale[j] = normalise ? 1.0f / (1.0f + rests[t[j]]) : 0.0f;
    of_blank[j] = inverse[j] = carry[j] = 0;
  }
  for (int n = lane; n <= u.N; n += 32)
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      const Occupancy o = occupied[(size_t)j * places + n];
      of_blank[j] += live[j] ? o.blank : 0.0f;
      inverse[j] += live[j] ? o.label : 0.0f;
    }
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    of_blank[j] = warp_sum(of_blank[j]);
    const float total = of_blank[j] + warp_sum(inverse[j]);
    inverse[j] = total > 0 ? 1.0f / total : 0.0f;
  }
  auto entry = [&](int j, int id, float occupancy) {
    const size_t i = (size_t)t[j] * u.V + id;
    const float softmax = expf(score_at(u.scores, i, u.kind) - peak[j]) * scale[j];
    write_at(gradient, i, fmaf(-occupancy, inverse[j], softmax), u.kind);
  };
  int carried = -1;
  for (int k0 = 0; k0 < u.N; k0 += 32) {
    const int k = k0 + lane;
    const bool has = k < u.N;
    const int id = has ? order.id[k] : -2, n = has ? order.place[k] : 0;
    const int next = k + 1 < u.N ? order.id[k + 1] : -3;
    float sum[kRows];
#pragma unroll
    for (int j = 0; j < kRows; ++j)
      sum[j] = has && live[j] ? occupied[(size_t)j * places + n].label : 0.0f;
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      const bool same = __shfl_up_sync(kAll, id, d) == id && lane >= d;
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        const float left = __shfl_up_sync(kAll, sum[j], d);
        if (same) sum[j] += left;
      }
    }
    const bool goes_on = id == carried;
    carried = __shfl_sync(kAll, id, 31);
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      if (goes_on) sum[j] += carry[j];
      carry[j] = __shfl_sync(kAll, sum[j], 31);
      if (has && id != next && live[j]) entry(j, id, sum[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kRows; ++j)
    if (lane == j && live[j]) entry(j, u.blank_id, of_blank[j]);
}

// A block a half: the frames that the walk from the other side has been through.
template <int R>
__device__ void back(const void* __restrict__ scores, const float* __restrict__ peaks,
                     const float* __restrict__ rests, const int* __restrict__ ids,
                     const unsigned char* __restrict__ skips,
                     const int* __restrict__ lengths, const int* __restrict__ counts,
                     const int* __restrict__ dims, const double* __restrict__ shifts,
                     Pair* kept, float* __restrict__ log_z, void* gradient_, Pair* rows,
                     Occupancy* occupied) {
  constexpr int F = Layout<R>::kFrames;
  constexpr bool kApart = Layout<R>::kApart;
  __shared__ Edges<R> edges[2];
  __shared__ Order<R> order;
  __shared__ Met met;
  const Dims d = dims_of(dims);
  const int b = blockIdx.x / 2, side = blockIdx.x % 2, other = 1 - side;
  const int places = d.U + 1, frames = d.G * F;  // of a group
  const int warps = Layout<R>::warps(places), lane = threadIdx.x % 32;
  const int crew = kApart ? min(warp_index() / warps, 2) : 0;
  const int warp = warp_index() - crew * warps;  // of the crew
  const Utterance u(scores, peaks, ids, skips, lengths, counts, d, b);
  const Half<F> half(other, u.T);
  rests += (size_t)b * d.frames;
  char* gradient = (char*)gradient_ + (size_t)b * d.frames * d.V * (d.kind ? 2 : 4);
  const size_t walk = (size_t)(d.Q + 1) * places;
  const Pair* starts = kept + (size_t)(2 * b + other) * walk;
  Pair* mine = kept + (size_t)(2 * b + side) * walk + (size_t)d.Q * places;
  rows += (size_t)blockIdx.x * 2 * frames * places;
  occupied += (size_t)blockIdx.x * 2 * frames * places;
  const int groups = (half.steps + d.G - 1) / d.G;

  Places<R> who(u, crew == 0 ? other : side, warp, lane);
  Column<R> at;
  Scores<R> now, ahead;
  if (kApart && crew == 1 && u.N >= 0) {
    at = load<R>(mine, who, places);
    now.read(u, half, who.id, half.steps - 1, lane);
  }
  for (int i = 0; i < groups + 2; ++i) {
    const int g0 = groups - 1 - i, g1 = g0 + 1, g2 = g0 + 2;
    if (i == 0) {
      const int idle = kApart ? warps : 0;  // its crew has something to do already
      if (warp_index() >= idle && u.N >= 0)
        sort_labels(order, u, side, threadIdx.x - 32 * idle, blockDim.x - 32 * idle);
      if (kApart ? crew == 2 && warp == 0 : warp == 0) {
        const Met found = meet(kept, shifts, skips, u.N, d, b, warps, lane);
        if (lane == 0) met = found;
        if (lane == 0 && side == 0) log_z[b] = found.log_z;
      }
      if (u.N >= 0 && !kApart) meet_block(3);
    }
    if (crew == 0 && g0 >= 0 && u.N >= 0) {
      const int first = g0 * d.G, count = min(d.G, half.steps - first);
      if (!kApart) who = Places<R>(u, other, warp, lane);
      Column<R> again = load<R>(starts + (size_t)g0 * places, who, places);
      now.read(u, half, who.id, first, lane);
      for (int s = 0; s < count; ++s) {
        const int c = first + s;
        ahead.read(u, half, who.id, c + 1, lane);
        if (c % Layout<R>::kSteps == 0) renormalise(again);
        if (warps > 1) tell(edges[0], s, again, warp, lane);
        const Emissions<R> p(now, u.kind, half.first(c), lane);
        if (warps > 1) {
          meet_crew(2, 1, 32 * warps);
          hear(edges[0], s, again, warp, lane);
        }
        again_step(again, who, p, rows + (size_t)((g0 & 1) * frames + s * F) * places,
                   places, lane);
        now = ahead;
      }
    }
    if ((!kApart || crew == 1) && g1 >= 0 && g1 < groups) {
      const int first = g1 * d.G, count = min(d.G, half.steps - first);
      if (!kApart) {
        who = Places<R>(u, side, warp, lane);
        at = load<R>(mine, who, places);
        now.read(u, half, who.id, first + count - 1, lane);
      }
      for (int s = count - 1; s >= 0; --s) {
        const int c = first + s;
        const size_t row = (size_t)((g1 & 1) * frames + s * F) * places;
        ahead.read(u, half, who.id, c - 1, lane);
        if ((half.steps - 1 - c) % Layout<R>::kSteps == 0) renormalise(at);
        if (warps > 1) tell(edges[1], c, at, warp, lane);
        const Emissions<R> p(now, u.kind, half.first(c), lane);
        if (warps > 1) {
          meet_crew(2, 2, 32 * warps);
          hear(edges[1], c, at, warp, lane);
        }
        onward_step(at, who, p, rows + row, occupied + row, places, u.N, met.scale, lane);
        now = ahead;
      }
      if (!kApart) store(mine, at, who, places);
    }
    if ((!kApart || crew == 2) && g2 >= 0 && g2 < groups) {
      const int writers = kApart ? blockDim.x / 32 - 2 * warps : warps;
      const int first = g2 * d.G, count = min(d.G, half.steps - first);
      for (int f = warp * kRows; f < count * F; f += writers * kRows) {
        int t[kRows];
        bool live[kRows];
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
          const int k = min(f + j, count * F - 1);
          t[j] = half.frame(first, k);
          live[j] = f + j < count * F && k >= half.first(first);
        }
        write_rows<R>(u, rests, gradient, order,
                             occupied + (size_t)((g2 & 1) * frames + f) * places, t, live,
                             places, d.normalise, lane);
      }
    }
    meet_block(4);
    if (i == 0 && !met.alive) {  // take the softmax back
      for (int f = 0; f < half.length; ++f)
        for (int v = threadIdx.x; v < d.V; v += blockDim.x)
          write_at(gradient, (size_t)(side ? f : u.T - 1 - f) * d.V + v, 0.0f, d.kind);
      return;
    }
  }
}

}  // namespace ctc
