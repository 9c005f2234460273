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

template <int R>
struct Layout {
  static constexpr int kFrames = 8 / R;                // F: frames of a step
  static constexpr int kHalo = (kFrames + R - 1) / R;   // lanes that two warps share
  static constexpr int kSteps = 8 / kFrames;           // steps between renormalisations
  // R = 8 may need so many warps that crews take turns instead of having their own.
  static constexpr bool kApart = R < 8;
  static constexpr int kWarps = R < 8 ? 6 : 17;  // of a crew, at most
  static constexpr int kPlaces = (kWarps * (32 - kHalo) + kHalo) * R;
  __device__ static int warps(int places) {
    int more = places - 32 * R;
    return more <= 0 ? 1 : 1 + (more + (32 - kHalo) * R - 1) / ((32 - kHalo) * R);
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

template <int R>
struct Column {
  Num blank[R], label[R];
};

// One utterance, as all its walks read it.
struct Utterance {
  const char* __restrict__ scores;
  const float* __restrict__ peaks;
  const int* __restrict__ ids;
  const unsigned char* __restrict__ skips;
  int V, T, N, blank_id, kind;
  __device__ Utterance(const void* scores_, const float* peaks_, const int* ids_,
                       const unsigned char* skips_, const int* lengths,
                       const int* counts, const Dims& d, int b)
      : scores((const char*)scores_ +
               (size_t)b * d.frames * d.V * (d.kind == kFloat32 ? 4 : 2)),
        peaks(peaks_ + (size_t)b * d.frames),
        ids(ids_ + (size_t)b * (d.U + 1)),
        skips(skips_ + (size_t)b * d.U),
        V(d.V), T(lengths[b]), N(counts[b]), blank_id(ids[d.U]), kind(d.kind) {}
  // Label n of the walk from a side, and whether label n - 1 may step straight to it.
  __device__ int id(int side, int n) const {
    return n < N ? ids[side ? N - 1 - n : n] : blank_id;
  }
  __device__ bool skip(int side, int n) const {
    return n > 0 && n < N && skips[side ? N - n : n];
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
    int i = min(max(step * F + f - pad, 0), max(length - 1, 0));
    return max(side ? T - 1 - i : i, 0);
  }
  // The first frame of a step that is one.
  __device__ int first(int step) const { return step == 0 ? pad : 0; }
};

// What a lane knows of its places.
template <int R>
struct Places {
  int n, id[R];
  bool skip[R];
  bool owns;  // or repeats what is the left neighbour's
  __device__ Places(const Utterance& u, int side, int warp, int lane)
      : n((warp * (32 - Layout<R>::kHalo) + lane) * R),
        owns(warp == 0 || lane >= Layout<R>::kHalo) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      id[r] = u.id(side, n + r);
      skip[r] = u.skip(side, n + r);
    }
  }
};

// The scores of a step as one warp reads them, in the bits that they have in memory: those
// of its labels, and lane f has the blank's score and the peak of frame f.
template <int R>
struct Scores {
  static constexpr int F = Layout<R>::kFrames;
  unsigned label[F][R], blank;
  float peak;
  __device__ void read(const Utterance& u, const Half<F>& half, const int (&id)[R],
                       int step, int lane) {
    if (u.kind == kFloat32)
      read_as((const unsigned*)u.scores, u, half, id, step, lane);
    else
      read_as((const unsigned short*)u.scores, u, half, id, step, lane);
  }
  template <class Bits>
  __device__ __forceinline__ void read_as(const Bits* __restrict__ scores,
                                          const Utterance& u, const Half<F>& half,
                                          const int (&id)[R], int step, int lane) {
#pragma unroll
    for (int f = 0; f < F; ++f) {
      const Bits* row = scores + (size_t)half.frame(step, f) * u.V;
#pragma unroll
      for (int r = 0; r < R; ++r) label[f][r] = row[id[r]];
    }
    const int t = half.frame(step, lane % F);
    blank = scores[(size_t)t * u.V + u.blank_id];
    peak = u.peaks[t];
  }
  __device__ __forceinline__ void widen(int kind) {
    if (kind == kFloat32) return;
    blank = __float_as_int(widened(blank, kind));
#pragma unroll
    for (int f = 0; f < F; ++f)
#pragma unroll
      for (int r = 0; r < R; ++r) label[f][r] = __float_as_int(widened(label[f][r], kind));
  }
};

// The emissions of a step; lane f has the blank's of frame f. A frame that is none emits
// blank with probability 1 and labels with 0.
template <int R>
struct Emissions {
  static constexpr int F = Layout<R>::kFrames;
  Num label[F][R], blank;
  __device__ Emissions(Scores<R>& x, int kind, int first, int lane) {
    x.widen(kind);
    blank = exp_below(__int_as_float(x.blank), x.peak);
    if (lane % F < first) blank = {1.0f, 0};
#pragma unroll
    for (int f = 0; f < F; ++f) {
      const float peak = F == 1 ? x.peak : __shfl_sync(kAll, x.peak, f);
#pragma unroll
      for (int r = 0; r < R; ++r)
        label[f][r] = only_if(f >= first, exp_below(__int_as_float(x.label[f][r]), peak));
    }
  }
  __device__ Num blank_of(int f) const { return F == 1 ? blank : of_lane(blank, f); }
};

// The ways into each place: a frame without its emission.
template <int R>
__device__ __forceinline__ Column<R> ways(const Column<R>& at, const Places<R>& who,
                                          int lane) {
  Num before = from_left(at.label[R - 1]);
  before = only_if(lane > 0, before);
  Column<R> into;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    Num left = r ? at.label[r - 1] : before;
    into.blank[r] = plus(at.blank[r], left);
    into.label[r] = plus(at.label[r], at.blank[r], only_if(who.skip[r], left));
  }
  return into;
}

template <int R>
__device__ __forceinline__ Column<R> emit(const Column<R>& into, Num blank,
                                          const Num (&label)[R]) {
  Column<R> at;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    at.blank[r] = times(into.blank[r], blank);
    at.label[r] = times(into.label[r], label[r]);
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
  int k = lane - (32 - Layout<R>::kHalo);
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
      Pair p = edges.last[turn & 1][warp - 1][lane * R + r];
      at.blank[r] = {p.bm, p.be};
      at.label[r] = {p.lm, p.le};
    }
}

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
    Pair p = who.n + r < places ? row[who.n + r] : Pair{1.0f, kZero, 1.0f, kZero};
    at.blank[r] = {p.bm, p.be};
    at.label[r] = {p.lm, p.le};
  }
  return at;
}

}  // namespace ctc
