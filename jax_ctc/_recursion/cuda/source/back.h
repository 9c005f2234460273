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
};

template <int R>
__device__ void sort_labels(Order<R>& order, const Utterance& u, int side, int thread,
                            int threads) {
  for (int n = thread; n < u.N; n += threads) {
    const int id = u.id(side, n);
    int k = 0;
#pragma unroll 4
    for (int m = 0; m < u.N; ++m) {
      const int other = u.id(side, m);
      k += other < id || (other == id && m < n);
    }
    order.place[k] = (short)n;
  }
}

// What the other laid down where blank and label meet it: blank j and label j - 1.
__device__ __forceinline__ void meet_place(Num& blank, Num& label, const Pair* row, int j) {
  blank = label = none();
  if (j >= 0) blank = {row[j].bm, row[j].be};
  if (j >= 1) label = {row[j - 1].lm, row[j - 1].le};
}

// alpha * beta of a place over 2^scale; about 1 at most, and 0 where either is.
__device__ __forceinline__ float product(Num a, Num b, int scale) {
  const Num q = times(a, b);
  return q.m * pow2(min(q.e - scale, 80));
}

// The steps of a group onward, from its last; `row` is that step's first frame.
template <int R>
__device__ __forceinline__ void onward_group(Walker<R>& walker, int first, int count,
                                             const Pair* rows,
                                             Occupancy* __restrict__ occupied, int scale) {
  constexpr int F = Layout<R>::kFrames;
  const Places<R>& who = walker.who;
  const int places = walker.u.places, N = walker.u.N;
  Num blank[F][R], label[F][R];  // laid down for this step; asked for a step before
  auto ask = [&](int s, int f) {
#pragma unroll
    for (int r = 0; r < R; ++r)
      meet_place(blank[f][r], label[f][r], rows + (size_t)(s * F + f) * places,
                 N - (who.n + r));
  };
  if (Layout<R>::kApart)
#pragma unroll
    for (int f = F - 1; f >= 0; --f) ask(count - 1, f);
  for (int s = count - 1; s >= 0; --s) {
    const int c = first + s;
    walker.step(c - 1, (walker.half.steps - 1 - c) % Layout<R>::kSteps == 0, [&] {
#pragma unroll
      for (int f = F - 1; f >= 0; --f) {
        if (!Layout<R>::kApart) ask(s, f);
        walker.at = emit(ways(walker.at, who, walker.lane), who, walker.table(), f);
        Occupancy* out = occupied + (size_t)(s * F + f) * places + who.n;
#pragma unroll
        for (int r = 0; r < R; ++r)
          if (who.owns && who.n + r < places)
            out[r] = {product(walker.at.blank[r], blank[f][r], scale),
                      product(walker.at.label[r], label[f][r], scale)};
        if (Layout<R>::kApart) ask(max(s - 1, 0), f);
      }
    });
  }
}

// The steps of a group of the other's walk once more; lays down the ways into places.
template <int R>
__device__ __forceinline__ void again_group(Walker<R>& walker, int first, int count,
                                            int group, Pair* __restrict__ rows) {
  constexpr int F = Layout<R>::kFrames;
  const Places<R>& who = walker.who;
  const int places = walker.u.places;
  for (int s = 0; s < count; ++s) {
    const int c = first + s, next = s + 1 < count ? c + 1 : first - group;
    walker.step(next, c % Layout<R>::kSteps == 0, [&] {
#pragma unroll
      for (int f = 0; f < F; ++f) {
        const Column<R> into = ways(walker.at, who, walker.lane);
        store(rows + (size_t)(s * F + f) * places, into, who, places);
        walker.at = emit(into, who, walker.table(), f);
      }
    });
  }
}

// Rows of the gradient by one warp: softmax - occupancy, where a label or blank is.
// Each row's occupancies are divided by their own sum, which cancels rounding that all
// of them share. Other classes have their softmax already.
template <int R>
__device__ __forceinline__ void write_rows(const Utterance& u, int side,
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
    const int n = has ? order.place[k] : 0, id = has ? u.id(side, n) : -2;
    const int next = k + 1 < u.N ? u.id(side, order.place[k + 1]) : -3;
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
                     const Pair* __restrict__ kept, float* __restrict__ log_z,
                     void* gradient_, Pair* rows, Occupancy* occupied, Pair* parked) {
  constexpr int F = Layout<R>::kFrames;
  constexpr bool kApart = Layout<R>::kApart;
  __shared__ Shared<R> shared[kApart ? 2 : 1];
  __shared__ Order<R> order;
  __shared__ Met met;
  const Dims d = dims_of(dims);
  const int b = blockIdx.x / 2, side = blockIdx.x % 2, other = 1 - side;
  const int places = d.U + 1, frames = d.G * F;  // of a group
  const int warps = Layout<R>::warps(places), lane = threadIdx.x % 32;
  const Utterance u(scores, peaks, ids, skips, lengths, counts, d, b);
  const Half<F> half(other, u.T);
  rests += (size_t)b * d.frames;
  char* gradient = (char*)gradient_ + (size_t)b * d.frames * d.V * (d.kind ? 2 : 4);
  const size_t walk = (size_t)(d.Q + 1) * places;
  const Pair* starts = kept + (size_t)(2 * b + other) * walk;
  const Pair* middle = kept + (size_t)(2 * b + side) * walk + (size_t)d.Q * places;
  rows += (size_t)blockIdx.x * 2 * frames * places;
  occupied += (size_t)blockIdx.x * 2 * frames * places;
  parked += (size_t)blockIdx.x * places;
  const int groups = u.N < 0 ? 0 : (half.steps + d.G - 1) / d.G;

  // Of group g: its first step, how many there are, and where its rows are.
  auto first_of = [&](int g) { return g * d.G; };
  auto count_of = [&](int g) { return min(d.G, half.steps - g * d.G); };
  auto has = [&](int g) { return g >= 0 && g < groups; };
  auto place_of = [&](int g) { return (size_t)((g & 1) * frames) * places; };

  auto prepare = [&](int warp, int thread, int threads) {
    sort_labels(order, u, side, thread, threads);
    if (warp > 0) return;
    const Met found = meet(kept, shifts, skips, u.N, d, b, warps, lane);
    if (lane > 0) return;
    met = found;
    if (side == 0) log_z[b] = found.log_z;
  };
  auto write = [&](int g, int warp, int writers) {
    const int first = first_of(g), count = count_of(g) * F;
    for (int f = warp * kRows; f < count; f += writers * kRows) {
      int t[kRows];
      bool live[kRows];
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        const int k = min(f + j, count - 1);
        t[j] = half.frame(first, k);
        live[j] = f + j < count && k >= half.first(first);
      }
      write_rows<R>(u, side, rests, gradient, order,
                    occupied + place_of(g) + (size_t)f * places, t, live, places,
                    d.normalise, lane);
    }
  };
  // Each role does its part of every turn; the first turn's end tells if there is more.
  auto turns = [&](auto role) {
    for (int i = 0; i < groups + 2; ++i) {
      role(i, groups - 1 - i);
      meet_block(5);
      if (i > 0 || met.alive) continue;
      for (int f = 0; f < half.length; ++f)  // take the softmax back
        for (int v = threadIdx.x; v < d.V; v += blockDim.x)
          write_at(gradient, (size_t)(side ? f : u.T - 1 - f) * d.V + v, 0.0f, d.kind);
      return;
    }
  };

  const int warp = warp_index();
  if constexpr (!kApart) {
    turns([&](int i, int g) {
      if (i == 0) prepare(warp, threadIdx.x, blockDim.x);
      if (has(g)) {
        Walker<R> walker(u, other, half, shared[0], 1, blockDim.x, warp, lane);
        walker.at = load<R>(starts + (size_t)g * places, walker.who, places);
        walker.begin(first_of(g));
        again_group(walker, first_of(g), count_of(g), d.G, rows + place_of(g));
      }
      if (has(g + 1)) {
        Walker<R> walker(u, side, half, shared[0], 1, blockDim.x, warp, lane);
        walker.at = load<R>(i == 1 ? middle : parked, walker.who, places);
        walker.begin(first_of(g + 1) + count_of(g + 1) - 1);
        onward_group(walker, first_of(g + 1), count_of(g + 1), rows + place_of(g + 1),
                     occupied + place_of(g + 1), met.scale);
        store(parked, walker.at, walker.who, places);
      }
      if (has(g + 2)) write(g + 2, warp, warps);
    });
    return;
  }
  const int crew_warps = warps + kReaders, threads = 32 * crew_warps;
  const int crew = min(warp / crew_warps, 2), member = warp - crew * crew_warps;
  if (crew == 2) {
    turns([&](int i, int g) {
      if (i == 0) prepare(member, threadIdx.x - 2 * threads, blockDim.x - 2 * threads);
      if (has(g + 2)) write(g + 2, member, kWriters);
    });
  } else if (member >= warps) {
    Reader<R> reader(u, crew == 0 ? other : side, half, member - warps, lane);
    int turn = 0, step = crew == 0 ? first_of(groups - 1) : half.steps - 1;
    auto next = [&](int c) {
      if (crew == 1) return c - 1;
      return c + 1 < half.steps && (c + 1) % d.G ? c + 1 : (c / d.G - 1) * d.G;
    };
    auto read = [&] {
      reader.answer(shared[crew].table.of(turn, reader.count), step);
      step = next(step);
      ++turn;
      reader.ask(step);
      meet_crew(turn == 1 ? 2 : 3, 1 + crew, threads);
    };
    reader.ask(step);
    read();
    turns([&](int, int g) {
      if (has(g + crew))
        for (int s = 0; s < count_of(g + crew); ++s) read();
    });
  } else if (crew == 0) {
    Walker<R> walker(u, other, half, shared[0], 1, threads, member, lane);
    walker.begin(0);
    turns([&](int, int g) {
      if (!has(g)) return;
      walker.at = load<R>(starts + (size_t)g * places, walker.who, places);
      walker.has_heard = true;
      again_group(walker, first_of(g), count_of(g), d.G, rows + place_of(g));
    });
  } else {
    Walker<R> walker(u, side, half, shared[1], 2, threads, member, lane);
    walker.at = load<R>(middle, walker.who, places);
    walker.begin(0);
    turns([&](int, int g) {
      if (has(g + 1))
        onward_group(walker, first_of(g + 1), count_of(g + 1), rows + place_of(g + 1),
                     occupied + place_of(g + 1), met.scale);
    });
  }
}

}  // namespace ctc
