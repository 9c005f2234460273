// One end's walk over the frames: how warps share the places, and one step of F frames.
//
// An utterance is walked from both ends to the middle. From the end it is the utterance
// in the mirror, labels and frames in reverse: place n of the mirrored walk is blank
// N - n and label N - 1 - n, and the same code serves both.
//
//     blank'[n] = p(blank)    * (blank[n] + label[n-1])
//     label'[n] = p(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])
//
// A lane has R places, a warp 32 R. Nothing moves further than one place a frame, so the
// first lanes of a warp repeat the last ones of the warp to its left: for F frames all
// that is wrong stays within them. Within a warp a neighbour's state comes by shuffle;
// between warps states are exchanged, and a barrier waited for, once in F frames.
#pragma once
#include "numbers.h"

namespace ctc {

struct alignas(16) Pair {  // blank and label of one place
  float bm;
  int be;
  float lm;
  int le;
};

constexpr int kReaders = 4;  // warps that read scores for the warps that walk

template <int R>
struct Layout {
  static constexpr int kFrames = 8 / R;                  // F: frames of a step
  static constexpr int kHalo = (kFrames + R - 1) / R;    // lanes that two warps share
  static constexpr int kSteps = 8 / kFrames;             // between renormalisations
  // So many labels need so many warps that all roles are taken by the same, in turns.
  static constexpr bool kApart = R < 8;
  static constexpr int kWarps = kApart ? 5 : 17;         // that walk, at most
  static constexpr int kPlaces = (kWarps * (32 - kHalo) + kHalo) * R;
  // Emissions at hand: of two steps; of one at least where roles take turns.
  static constexpr int kCells = kApart ? 2 * kFrames * kPlaces : kPlaces;
  __device__ static int warps(int places) {
    const int more = places - 32 * R, each = (32 - kHalo) * R;
    return more <= 0 ? 1 : 1 + (more + each - 1) / each;
  }
};

struct Dims {
  int B, frames, V, U;
  int G, Q;  // steps of a group, groups of a walk at most
  bool normalise;
  int kind;
};
__device__ inline Dims dims_of(const int* d) {
  return {d[0], d[1], d[2], d[3], d[4], d[5], d[6] != 0, d[7]};
}

// One utterance, as all its walks read it.
struct Utterance {
  const char* __restrict__ scores;
  const float* __restrict__ peaks;
  const int* __restrict__ ids;
  const unsigned char* __restrict__ skips;
  int V, T, N, blank_id, kind, places;
  __device__ Utterance(const void* scores_, const float* peaks_, const int* ids_,
                       const unsigned char* skips_, const int* lengths,
                       const int* counts, const Dims& d, int b)
      : scores((const char*)scores_ +
               (size_t)b * d.frames * d.V * (d.kind == kFloat32 ? 4 : 2)),
        peaks(peaks_ + (size_t)b * d.frames),
        ids(ids_ + (size_t)b * (d.U + 1)),
        skips(skips_ + (size_t)b * d.U),
        V(d.V), T(lengths[b]), N(counts[b]), blank_id(ids[d.U]), kind(d.kind),
        places(d.U + 1) {}
  // Label n of the walk from a side, and whether label n - 1 may step straight to it.
  __device__ int id(int side, int n) const {
    return n < N ? ids[side ? N - 1 - n : n] : blank_id;
  }
  __device__ bool skip(int side, int n) const {
    return n > 0 && n < N && skips[side ? N - n : n];
  }
  // Emissions are found once for each class, or once for each place, whatever is less.
  __device__ bool by_class() const { return V <= places; }
  __device__ int cells() const { return min(V, places); }
  __device__ int cell(int side, int n) const { return by_class() ? id(side, n) : n; }
  __device__ int blank_cell() const { return by_class() ? blank_id : places - 1; }
  __device__ int class_of(int side, int cell) const {
    return by_class() ? cell : cell < places - 1 ? id(side, cell) : blank_id;
  }
};

// Frames of a side's half, nearest to its end first. Steps are whole: the first one
// begins with `pad` frames that are none, in which the start stays what it is.
template <int F>
struct Half {
  int side, T, length, steps, pad;
  __device__ Half(int side_, int T_)
      : side(side_), T(T_), length(side ? T / 2 : T - T / 2),
        steps((length + F - 1) / F), pad(steps * F - length) {}
  __device__ int frame(int step, int f) const {
    const int i = min(max(step * F + f - pad, 0), max(length - 1, 0));
    return max(side ? T - 1 - i : i, 0);
  }
  // The first frame of a step that is one.
  __device__ int first(int step) const { return step == 0 ? pad : 0; }
};

// The emissions of two steps. A frame that is none emits blank with probability 1 and
// labels with 0.
template <int R>
struct Table {
  Num cells[Layout<R>::kCells];
  __device__ Num* of(int turn, int count) {
    const int half = Layout<R>::kFrames * count;
    return cells + (has_two(count) ? (turn & 1) * half : 0);
  }
  __device__ static bool has_two(int count) {
    return Layout<R>::kApart || 2 * Layout<R>::kFrames * count <= Layout<R>::kCells;
  }
};

// What a cell of the table holds.
__device__ __forceinline__ Num emission(unsigned bits, float peak, int kind, bool live,
                                        bool is_blank) {
  const Num p = exp_below(widened(bits, kind), peak);
  return live ? p : Num{1.0f, is_blank ? 0 : kZero};
}
__device__ __forceinline__ unsigned score_bits(const Utterance& u, int t, int id) {
  const size_t at = (size_t)t * u.V + id;
  return u.kind == kFloat32 ? ((const unsigned*)u.scores)[at]
                            : ((const unsigned short*)u.scores)[at];
}

// Fills the table, where that is all that a warp does. Each lane has the same cells in
// every step, and asks for their scores a step before it needs them.
template <int R>
struct Reader {
  static constexpr int F = Layout<R>::kFrames;
  static constexpr int kBlocks = (Layout<R>::kPlaces + 31) / 32;
  static constexpr int kMost = (F * kBlocks + kReaders - 1) / kReaders;
  const Utterance& u;
  const Half<F> half;
  const int count;
  int f[kMost], k[kMost], id[kMost];  // of frame f cell k, or none if k < 0
  unsigned bits[kMost];
  float peak[kMost];
  __device__ Reader(const Utterance& u_, int side, const Half<F>& half_, int warp,
                    int lane)
      : u(u_), half(half_), count(u.cells()) {
    const int blocks = (count + 31) / 32;
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      const int j = i * kReaders + warp;
      f[i] = j / blocks;
      k[i] = (j - f[i] * blocks) * 32 + lane;
      if (f[i] >= F || k[i] >= count) k[i] = -1;
      id[i] = k[i] < 0 ? 0 : u.class_of(side, k[i]);
    }
  }
  __device__ __forceinline__ void ask(int step) {
#pragma unroll
    for (int i = 0; i < kMost; ++i)
      if (k[i] >= 0) {
        const int t = half.frame(step, f[i]);
        bits[i] = score_bits(u, t, id[i]);
        peak[i] = u.peaks[t];
      }
  }
  __device__ __forceinline__ void answer(Num* table, int step) const {
#pragma unroll
    for (int i = 0; i < kMost; ++i)
      if (k[i] >= 0)
        table[f[i] * count + k[i]] = emission(bits[i], peak[i], u.kind,
                                              f[i] >= half.first(step),
                                              k[i] == u.blank_cell());
  }
};

// The same by all threads of a block, for steps of one frame.
__device__ __forceinline__ void fill(Num* table, const Utterance& u, int side,
                                     const Half<1>& half, int step) {
  const int t = half.frame(step, 0), count = u.cells();
  const float peak = u.peaks[t];
#pragma unroll 4
  for (int k = threadIdx.x; k < count; k += blockDim.x)
    table[k] = emission(score_bits(u, t, u.class_of(side, k)), peak, u.kind, true,
                        k == u.blank_cell());
}

// What a lane knows of its places.
template <int R>
struct Places {
  int n, cell[R], blank_cell, count;
  bool skip[R];
  bool owns;  // or repeats what is the left neighbour's
  __device__ Places(const Utterance& u, int side, int warp, int lane)
      : n((warp * (32 - Layout<R>::kHalo) + lane) * R),
        blank_cell(u.blank_cell()),
        count(u.cells()),
        owns(warp == 0 || lane >= Layout<R>::kHalo) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      cell[r] = min(u.cell(side, n + r), count - 1);
      skip[r] = u.skip(side, n + r);
    }
  }
};

template <int R>
struct Column {
  Num blank[R], label[R];
};

// The ways into each place: a frame without its emission.
template <int R>
__device__ __forceinline__ Column<R> ways(const Column<R>& at, const Places<R>& who,
                                          int lane) {
  const Num before = only_if(lane > 0, from_left(at.label[R - 1]));
  Column<R> into;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const Num left = r ? at.label[r - 1] : before;
    into.blank[r] = plus(at.blank[r], left);
    into.label[r] = plus(at.label[r], at.blank[r], only_if(who.skip[r], left));
  }
  return into;
}

template <int R>
__device__ __forceinline__ Column<R> emit(const Column<R>& into, const Places<R>& who,
                                          const Num* table, int f) {
  const Num* row = table + f * who.count;
  const Num blank = row[who.blank_cell];
  Column<R> at;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    at.blank[r] = times(into.blank[r], blank);
    at.label[r] = times(into.label[r], row[who.cell[r]]);
  }
  return at;
}

template <int R>
__device__ __forceinline__ void renormalise(Column<R>& at) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
    at.blank[r] = renormalised(at.blank[r]);
    at.label[r] = renormalised(at.label[r]);
  }
}

// What warps tell their right neighbours, in turns of two: one barrier is then enough.
template <int R>
struct Edges {
  Pair last[2][Layout<R>::kWarps][Layout<R>::kHalo * R];
};

template <int R>
__device__ __forceinline__ void tell(Edges<R>& edges, int turn, const Column<R>& at,
                                     int warp, int lane) {
  const int k = lane - (32 - Layout<R>::kHalo);
  if (k >= 0)
#pragma unroll
    for (int r = 0; r < R; ++r)
      edges.last[turn & 1][warp][k * R + r] = {at.blank[r].m, at.blank[r].e,
                                               at.label[r].m, at.label[r].e};
}
template <int R>
__device__ __forceinline__ void hear(const Edges<R>& edges, int turn, Column<R>& at,
                                     int warp, int lane) {
  if (warp > 0 && lane < Layout<R>::kHalo)
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Pair p = edges.last[turn & 1][warp - 1][lane * R + r];
      at.blank[r] = {p.bm, p.be};
      at.label[r] = {p.lm, p.le};
    }
}

// What a crew of warps has in common.
template <int R>
struct Shared {
  Edges<R> edges;
  Table<R> table;
};

// A warp that walks. With readers beside it the table is filled while it walks, and one
// barrier a step serves edges and table; else all warps fill it before or after.
template <int R>
struct Walker {
  static constexpr bool kApart = Layout<R>::kApart;
  const Utterance& u;
  const Half<Layout<R>::kFrames> half;
  Shared<R>& shared;
  const int side, crew, threads, warps, warp, lane;
  const Places<R> who;
  Column<R> at;
  int turn = 0;
  bool has_heard = true;  // the column is whole: nothing is to be heard from the left

  __device__ Walker(const Utterance& u_, int side_, const Half<Layout<R>::kFrames>& half_,
                    Shared<R>& shared_, int crew_, int threads_, int warp_, int lane_)
      : u(u_), half(half_), shared(shared_), side(side_), crew(crew_), threads(threads_),
        warps(Layout<R>::warps(u.places)), warp(warp_), lane(lane_),
        who(u, side, warp_, lane_) {}

  __device__ __forceinline__ const Num* table() { return shared.table.of(turn, who.count); }
  __device__ void begin(int step) {
    if constexpr (!kApart) fill(shared.table.of(turn, who.count), u, side, half, step);
    meet_crew(2, crew, threads);
  }
  // `frames` walks them; the step after this one is `next`.
  template <class Frames>
  __device__ __forceinline__ void step(int next, bool is_due, Frames frames) {
    const bool has_two = Table<R>::has_two(who.count);
    if constexpr (!kApart)
      if (has_two) fill(shared.table.of(turn + 1, who.count), u, side, half, next);
    if (warps > 1 && !has_heard) hear(shared.edges, turn, at, warp, lane);
    if (is_due) renormalise(at);
    frames();
    if (warps > 1) tell(shared.edges, turn + 1, at, warp, lane);
    meet_crew(3, crew, threads);
    if constexpr (!kApart)
      if (!has_two) {
        fill(shared.table.of(turn + 1, who.count), u, side, half, next);
        meet_crew(4, crew, threads);
      }
    ++turn;
    has_heard = false;
  }
};

// A column in memory: the places that there are, each written by the lane that owns it.
template <int R>
__device__ __forceinline__ void store(Pair* row, const Column<R>& at,
                                      const Places<R>& who, int places) {
#pragma unroll
  for (int r = 0; r < R; ++r)
    if (who.owns && who.n + r < places)
      row[who.n + r] = {at.blank[r].m, at.blank[r].e, at.label[r].m, at.label[r].e};
}
template <int R>
__device__ __forceinline__ Column<R> load(const Pair* row, const Places<R>& who,
                                          int places) {
  Column<R> at;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const Pair p = who.n + r < places ? row[who.n + r] : Pair{1.0f, kZero, 1.0f, kZero};
    at.blank[r] = {p.bm, p.be};
    at.label[r] = {p.lm, p.le};
  }
  return at;
}

}  // namespace ctc
