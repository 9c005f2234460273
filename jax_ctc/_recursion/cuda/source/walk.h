// A walk over the frames: how warps share the places, and one frame.
//
//     blank'[n] = p(blank)    * (blank[n] + label[n-1])
//     label'[n] = p(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])
//
// A lane has R places, a warp 32 R. Nothing moves further than one place a frame, so the
// first lanes of a warp repeat the last ones of the warp to its left: for F frames all
// that is wrong stays within them. Within a warp a neighbour's state comes by shuffle;
// between warps states are exchanged, and a barrier waited for, once in F frames. Where F
// is 1, nothing is repeated: the first lane is told its neighbour's label.
#pragma once
#include "utterance.h"

namespace ctc {

struct alignas(16) Pair {  // blank and label of one place
  float bm;
  int be;
  float lm;
  int le;
};

template <int R_, int kWarps_, class Number_>
struct Layout {
  using Number = Number_;                                  // of a state
  static constexpr int R = R_, kWarps = kWarps_;           // warps that walk, at most
  static constexpr int F = R < 8 ? 8 / R : 1;              // frames of a step
  static constexpr int kHalo = R < 8 ? (F + R - 1) / R : 0;  // lanes that are repeated
  static constexpr int kPlaces = (kWarps * (32 - kHalo) + kHalo) * R;
  // Others read for the warps that walk; 8 labels and more leave no registers for others,
  // and they read themselves.
  static constexpr bool kApart = R < 8;
  // Emissions at hand: of two steps; of one at least where warps do both.
  static constexpr int kCells = kApart ? 2 * F * kPlaces : kPlaces;
  __device__ static int warps(int places) {
    const int more = places - 32 * R, each = (32 - kHalo) * R;
    return more <= 0 ? 1 : 1 + (more + each - 1) / each;
  }
  // Significands are renormalised every 8 frames.
  __device__ static bool is_due(int step) { return step % (8 / F) == 0; }
};

// What a lane knows of its places.
template <class L>
struct Places {
  int n, end;  // those from `end` on are not there, or all repeat the left neighbour's
  int blank_cell;
  unsigned cells[(L::R + 1) / 2] = {};  // of labels, two bytes each: registers are dear
  unsigned skips = 0;  // a bit each
  __device__ Places(const Utterance& u, int side, int warp, int lane)
      : n((warp * (32 - L::kHalo) + lane) * L::R),
        end(warp == 0 || lane >= L::kHalo ? u.places : 0), blank_cell(u.blank_cell()) {
#pragma unroll
    for (int r = 0; r < L::R; ++r) {
      cells[r / 2] |= min(u.cell(side, n + r), u.cells() - 1) << (r % 2 * 16);
      skips |= (unsigned)u.skip(side, n + r) << r;
    }
  }
  __device__ __forceinline__ int cell(int r) const {
    return L::R == 1 ? cells[0] : cells[r / 2] >> (r % 2 * 16) & 0xffff;
  }
  __device__ __forceinline__ bool owns(int r) const { return n + r < end; }
  __device__ __forceinline__ bool skip(int r) const { return skips >> r & 1; }
};

template <class L>
struct Column {
  typename L::Number blank[L::R], label[L::R];
};

// What warps tell their right neighbours, in turns of two: one barrier is then enough.
template <class L>
struct Edges {
  static constexpr int R = L::R, kHalo = L::kHalo;
  static constexpr int kTold = kHalo > 0 ? kHalo * R : 1;
  using Number = typename L::Number;
  struct alignas(sizeof(Number) == 8 ? 16 : 8) Place {
    Number blank, label;
  };
  Place last[2][L::kWarps][kTold];
  __device__ __forceinline__ void tell(int turn, const Column<L>& at, int warp, int lane) {
    Place* mine = last[turn & 1][warp];
    if (kHalo == 0 && lane == 31) mine[0].label = at.label[R - 1];
    if (kHalo > 0 && lane >= 32 - kHalo)
#pragma unroll
      for (int r = 0; r < R; ++r)
        mine[(lane - (32 - kHalo)) * R + r] = {at.blank[r], at.label[r]};
  }
  __device__ __forceinline__ void hear(int turn, Column<L>& at, Number& edge, int warp,
                                       int lane) const {
    if (warp == 0) return;
    const Place* theirs = last[turn & 1][warp - 1];
    if (kHalo == 0 && lane == 0) edge = theirs[0].label;
    if (lane >= kHalo) return;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      at.blank[r] = theirs[lane * R + r].blank;
      at.label[r] = theirs[lane * R + r].label;
    }
  }
};

// A warp that walks.
template <class L>
struct Walker {
  static constexpr int R = L::R;
  using Number = typename L::Number;
  const Places<L> who;
  const int places, warp, lane;
  const bool is_alone;  // no other warp walks
  Column<L> at;
  Number edge = zero<Number>();  // of the label to the left, where no lane repeats it
  bool is_whole = true;  // nothing is to be heard from the left
  __device__ Walker(const Utterance& u, int side, int warp_, int lane_)
      : who(u, side, warp_, lane_), places(u.places), warp(warp_), lane(lane_),
        is_alone(L::warps(places) == 1) {}

  __device__ void start() {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      at.blank[r] = at.label[r] = zero<Number>();
      if (who.n + r == 0) at.blank[r].e = 0;
    }
  }

  // A column in memory: the places that there are, each written by the lane that owns it.
  __device__ __forceinline__ void store(Pair* row) const {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Num blank = rounded(at.blank[r]), label = rounded(at.label[r]);
      if (who.owns(r)) row[who.n + r] = {blank.m, blank.e, label.m, label.e};
    }
  }
  // What that column lacks.
  __device__ void store_lost(float2* row) const {
    auto lost = [](Sum a) { return (a.m - rounded(a).m) + a.lost; };
#pragma unroll
    for (int r = 0; r < R; ++r)
      if (who.owns(r)) row[who.n + r] = {lost(at.blank[r]), lost(at.label[r])};
  }
  __device__ __forceinline__ void load(const Pair* row) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Pair p = who.n + r < places ? row[who.n + r] : Pair{1.0f, kZero, 1.0f, kZero};
      at.blank[r] = {p.bm, p.be};
      at.label[r] = {p.lm, p.le};
    }
    if (L::kHalo == 0 && who.n > 0 && who.n <= places)
      edge = {row[who.n - 1].lm, row[who.n - 1].le};
    is_whole = true;
  }

  // A step, whose frames `frames` walks.
  template <class Frames>
  __device__ __forceinline__ void step(Edges<L>& edges, int turn, bool is_due,
                                       Frames frames) {
    if (!is_alone && !is_whole) edges.hear(turn, at, edge, warp, lane);
    if (is_due)
#pragma unroll
      for (int r = 0; r < R; ++r) {
        at.blank[r] = renormalised(at.blank[r]);
        at.label[r] = renormalised(at.label[r]);
      }
    frames();
    if (!is_alone) edges.tell(turn + 1, at, warp, lane);
    is_whole = false;
  }

  // A frame, given its emissions. `on_ways` sees the ways into each place before them.
  template <class OnWays>
  __device__ __forceinline__ void frame(const Num* emission, OnWays on_ways) {
    Number before = from_left(at.label[R - 1]);
    if (L::kHalo > 0) before = only_if(lane > 0, before);
    if (L::kHalo == 0 && lane == 0) before = edge;
    const Num of_blank = emission[who.blank_cell];
#pragma unroll
    for (int r = R - 1; r >= 0; --r) {
      const Number left = r ? at.label[r - 1] : before;
      const Number blank = plus(at.blank[r], left);
      const Number label = plus(at.label[r], at.blank[r], only_if(who.skip(r), left));
      on_ways(r, blank, label);
      at.blank[r] = times(blank, of_blank);
      at.label[r] = times(label, emission[who.cell(r)]);
    }
  }
};

}  // namespace ctc
