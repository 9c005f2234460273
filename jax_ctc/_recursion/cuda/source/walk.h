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
// between warps states are exchanged, and a barrier waited for, once in F frames. Where F
// is 1, nothing is repeated: the first lane is told its neighbour's label.
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
  static constexpr int kFrames = 8 / R;                   // F: frames of a step
  static constexpr int kHalo = R < 8 ? (kFrames + R - 1) / R : 0;  // lanes repeated
  static constexpr int kSteps = 8 / kFrames;              // between renormalisations
  // So many labels need so many warps that all roles are taken by the same, in turns.
  static constexpr bool kApart = R < 8;
  static constexpr int kWarps = kApart ? 5 : 16;          // that walk, at most
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
  __device__ unsigned bits(size_t i) const {
    return kind == kFloat32 ? ((const unsigned*)scores)[i]
                            : ((const unsigned short*)scores)[i];
  }
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

// One of the warps that fill the table, each its share of frames and cells. Scores are
// asked for a step before their emissions are found: memory takes as long as a step.
template <int R>
struct Reader {
  static constexpr int F = Layout<R>::kFrames;
  static constexpr int kApart = Layout<R>::kApart;
  static constexpr int kRows = F > kReaders ? F / kReaders : 1;  // frames of a warp
  static constexpr int kShare = kApart ? kReaders / (F < kReaders ? F : kReaders)
                                       : Layout<R>::kWarps;  // warps of a frame, at most
  static constexpr int kBlocks = (Layout<R>::kPlaces + 31) / 32;
  static constexpr int kCells = (kBlocks + kShare - 1) / kShare;  // of a lane and frame
  // Where a warp walks as well, it has registers for so many only.
  static constexpr int kAhead = kApart || kCells < 2 ? kCells : 2;
  const Utterance& u;
  const int side, count, first_frame, first_cell, stride;
  const Half<F> half;
  struct Asked {
    unsigned bits[kRows][kAhead];
    float peak[kRows];
  };
  __device__ Reader(const Utterance& u_, int side_, const Half<F>& half_, int warp,
                    int warps, int lane)
      : u(u_), side(side_), count(u.cells()), first_frame(kApart ? warp % F % kReaders : 0),
        first_cell((kApart ? warp / F : warp) * 32 + lane),
        stride(32 * (kApart ? kShare : warps)), half(half_) {}
  __device__ __forceinline__ void ask(Asked& asked, int step) const {
    if (u.kind == kFloat32)
      ask_in((const unsigned*)u.scores, asked, step);
    else
      ask_in((const unsigned short*)u.scores, asked, step);
  }
  template <class Bits>
  __device__ __forceinline__ void ask_in(const Bits* scores, Asked& asked, int step) const {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      const int t = half.frame(step, first_frame + m * kReaders);
      const Bits* row = scores + (size_t)t * u.V;
      asked.peak[m] = u.peaks[t];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int k = first_cell + i * stride;
        if (k < count) asked.bits[m][i] = row[u.class_of(side, k)];
      }
    }
  }
  __device__ __forceinline__ void answer(const Asked& asked, Num* table, int step) const {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      const int f = first_frame + m * kReaders;
      const bool live = f >= half.first(step);
      Num* row = table + f * count;
      auto put = [&](int k, unsigned bits) {
        const Num p = exp_below(widened(bits, u.kind), asked.peak[m]);
        row[k] = live ? p : Num{1.0f, k == u.blank_cell() ? 0 : kZero};
      };
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int k = first_cell + i * stride;
        if (k < count) put(k, asked.bits[m][i]);
      }
      if (kAhead == kCells) continue;
      const size_t start = (size_t)half.frame(step, f) * u.V;
#pragma unroll 1
      for (int k = first_cell + kAhead * stride; k < count; k += stride)
        put(k, u.bits(start + u.class_of(side, k)));
    }
  }
};

// What a lane knows of its places.
template <int R>
struct Places {
  int n, cell[R], blank_cell, count;
  bool skip[R];
  bool owns[R];  // or repeats what is the left neighbour's, or there is no such place
  __device__ Places(const Utterance& u, int side, int warp, int lane)
      : n((warp * (32 - Layout<R>::kHalo) + lane) * R),
        blank_cell(u.blank_cell()), count(u.cells()) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      owns[r] = (warp == 0 || lane >= Layout<R>::kHalo) && n + r < u.places;
      cell[r] = min(u.cell(side, n + r), count - 1);
      skip[r] = u.skip(side, n + r);
    }
  }
};

template <int R>
struct Column {
  Num blank[R], label[R];
};

// One frame. `on_ways` sees the ways into each place, before the emission.
template <int R, class OnWays>
__device__ __forceinline__ void advance(Column<R>& at, const Places<R>& who,
                                        const Num* emission, Num edge, int lane,
                                        OnWays on_ways) {
  Num before = from_left(at.label[R - 1]);
  if (lane == 0) before = edge;
  const Num of_blank = emission[who.blank_cell];
#pragma unroll
  for (int r = R - 1; r >= 0; --r) {
    const Num left = r ? at.label[r - 1] : before;
    const Num blank = plus(at.blank[r], left);
    const Num label = plus(at.label[r], at.blank[r], only_if(who.skip[r], left));
    on_ways(r, blank, label);
    at.blank[r] = times(blank, of_blank);
    at.label[r] = times(label, emission[who.cell[r]]);
  }
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
  static constexpr int kHalo = Layout<R>::kHalo, kCount = kHalo > 0 ? kHalo * R : 1;
  Pair last[2][Layout<R>::kWarps][kCount];
  __device__ __forceinline__ void tell(int turn, const Column<R>& at, int warp, int lane) {
    Pair* mine = last[turn & 1][warp];
    if (kHalo == 0 && lane == 31)
      mine[0] = {1.0f, kZero, at.label[R - 1].m, at.label[R - 1].e};
    if (kHalo > 0 && lane >= 32 - kHalo)
#pragma unroll
      for (int r = 0; r < R; ++r)
        mine[(lane - (32 - kHalo)) * R + r] = {at.blank[r].m, at.blank[r].e,
                                               at.label[r].m, at.label[r].e};
  }
  __device__ __forceinline__ void hear(int turn, Column<R>& at, Num& edge, int warp,
                                       int lane) const {
    if (warp == 0) return;
    const Pair* theirs = last[turn & 1][warp - 1];
    if (kHalo == 0 && lane == 0) edge = {theirs[0].lm, theirs[0].le};
    if (lane >= kHalo) return;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      at.blank[r] = {theirs[lane * R + r].bm, theirs[lane * R + r].be};
      at.label[r] = {theirs[lane * R + r].lm, theirs[lane * R + r].le};
    }
  }
};

// A column in memory: the places that there are, each written by the lane that owns it.
template <int R>
__device__ __forceinline__ void store(Pair* row, const Column<R>& at,
                                      const Places<R>& who) {
#pragma unroll
  for (int r = 0; r < R; ++r)
    if (who.owns[r])
      row[who.n + r] = {at.blank[r].m, at.blank[r].e, at.label[r].m, at.label[r].e};
}

// What a crew of warps has in common.
template <int R>
struct Shared {
  Edges<R> edges;
  Table<R> table;
};

// A warp that walks.
template <int R>
struct Walker {
  const Places<R> who;
  const int places, warps, warp, lane;
  Column<R> at;
  Num edge = none();     // of the label to the left, where no lane repeats it
  bool is_whole = true;  // nothing is to be heard from the left
  __device__ Walker(const Utterance& u, int side, int warp_, int lane_)
      : who(u, side, warp_, lane_), places(u.places), warps(Layout<R>::warps(places)),
        warp(warp_), lane(lane_) {}
  // A step, whose frames `frames` walks.
  template <class Frames>
  __device__ __forceinline__ void step(Edges<R>& edges, int turn, bool is_due,
                                       Frames frames) {
    if (warps > 1 && !is_whole) edges.hear(turn, at, edge, warp, lane);
    if (is_due) renormalise(at);
    frames();
    if (warps > 1) edges.tell(turn + 1, at, warp, lane);
    is_whole = false;
  }
  template <class OnWays>
  __device__ __forceinline__ void frame(const Num* table, int f, OnWays on_ways) {
    advance(at, who, table + f * who.count, edge, lane, on_ways);
  }
  __device__ void load(const Pair* row) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Pair p = who.n + r < places ? row[who.n + r] : Pair{1.0f, kZero, 1.0f, kZero};
      at.blank[r] = {p.bm, p.be};
      at.label[r] = {p.lm, p.le};
    }
    if (Layout<R>::kHalo == 0 && who.n > 0 && who.n <= places)
      edge = {row[who.n - 1].lm, row[who.n - 1].le};
    is_whole = true;
  }
};

// A crew: warps that walk and warps that read for them, or warps that do both. What is
// read in a step is walked in the next; one barrier a step serves table and edges.
template <int R>
struct Crew {
  static constexpr bool kApart = Layout<R>::kApart;
  static constexpr int F = Layout<R>::kFrames;
  Shared<R>& shared;
  const Reader<R> reader;
  const bool walks, reads;
  const int number, threads;
  int turn = 0;  // of the table
  __device__ Crew(Shared<R>& shared_, const Utterance& u, int side, const Half<F>& half,
                  int number_, int warps, int warp, int lane, bool walks_, bool reads_)
      : shared(shared_),
        reader(u, side, half, kApart ? warp - warps : warp, warps, lane), walks(walks_),
        reads(reads_), number(number_),
        threads(32 * (kApart ? warps + kReaders : warps)) {}
  __device__ void meet(int barrier) const { meet_crew(barrier, number, threads); }
  __device__ const Num* table() const { return shared.table.of(turn, reader.count); }
  // Steps begin, begin + by, ...; after the last of them comes step `then`. The table
  // has the first already unless `anew`. `walk` does a step.
  template <class Walk>
  __device__ __forceinline__ void steps(int begin, int count, int by, int then, bool anew,
                                        Walk walk) {
    const bool has_two = Table<R>::has_two(reader.count);
    auto nth = [&](int s) { return s < count ? begin + s * by : then + (s - count) * by; };
    typename Reader<R>::Asked now, ahead;
    if (reads && kApart) reader.ask(now, nth(anew ? 0 : 1));
    for (int s = anew ? -1 : 0; s < count; ++s) {
      if (reads) reader.ask(ahead, nth(kApart ? s + 2 : s + 1));
      if (walks && s >= 0) walk(begin + s * by);
      if (!has_two) meet(3);
      if (reads)
        reader.answer(kApart ? now : ahead, shared.table.of(turn + 1, reader.count),
                      nth(s + 1));
      meet(s < 0 ? 2 : 4);
      if (kApart) now = ahead;
      ++turn;
    }
  }
};

}  // namespace ctc
