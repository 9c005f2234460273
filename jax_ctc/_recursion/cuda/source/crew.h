// A crew: warps that walk, and warps that read scores for them.
//
// What is read in a step is walked in the next, so that neither waits for the other; one
// barrier a step serves emissions and edges alike.
#pragma once
#include "walk.h"

namespace ctc {

constexpr int kReaders = 4;  // warps, where they have nothing else to do

// The emissions of two steps. A frame that is none emits blank with probability 1 and
// labels with 0.
template <class L>
struct Table {
  Num cells[L::kCells];
  __device__ Num* of(int turn, int count) {
    return cells + (has_two(count) ? (turn & 1) * L::F * count : 0);
  }
  __device__ static bool has_two(int count) {
    return L::kApart || 2 * L::F * count <= L::kCells;
  }
};

template <class L>
struct Shared {
  Edges<L> edges;
  Table<L> table;
};

// One of the warps that fill the table, each its share of frames and cells. Scores are
// asked for a step before their emissions are found: memory takes as long as a step.
template <class L>
struct Reader {
  static constexpr int F = L::F;
  static constexpr int kRows = F > kReaders ? F / kReaders : 1;  // frames of a warp
  static constexpr int kShare =  // warps of a frame, at most
      L::kApart ? kReaders / (F < kReaders ? F : kReaders) : L::kWarps;
  static constexpr int kBlocks = (L::kPlaces + 31) / 32;
  static constexpr int kCells = (kBlocks + kShare - 1) / kShare;  // of a lane and frame
  // Where a warp walks as well, it has registers for so many only.
  static constexpr int kSpare = sizeof(typename L::Number) * L::R > 128 ? 1 : 2;
  static constexpr int kAhead = L::kApart || kCells < kSpare ? kCells : kSpare;
  const Utterance& u;
  const int side, count, lane, first_frame, first_cell, stride;
  const Half<F> half;
  int id[kAhead];  // the class of each cell
  struct Asked {
    unsigned bits[kRows][kAhead];
    float peak[kRows];
  };
  __device__ Reader(const Utterance& u_, int side_, const Half<F>& half_, int warp,
                    int warps, int lane_)
      : u(u_), side(side_), count(u.cells()), lane(lane_),
        first_frame(L::kApart ? warp % F % kReaders : 0),
        first_cell((L::kApart ? warp / F : warp) * 32),
        stride(32 * (L::kApart ? kShare : warps)), half(half_) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      id[i] = u.class_of(side, min(first_cell + i * stride + lane, count - 1));
  }

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
        if (first_cell + i * stride >= count) break;
        asked.bits[m][i] = row[id[i]];
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
        const Num cell = live ? p : Num{1.0f, k == u.blank_cell() ? 0 : kZero};
        if (k < count) row[k] = cell;
      };
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first_cell + i * stride >= count) break;
        put(first_cell + i * stride + lane, asked.bits[m][i]);
      }
      if (kAhead == kCells) continue;
      const size_t start = (size_t)half.frame(step, f) * u.V;
#pragma unroll 1
      for (int k = first_cell + kAhead * stride; k < count; k += stride)
        put(k + lane, u.bits(start + u.class_of(side, min(k + lane, count - 1))));
    }
  }
};

template <class L>
struct Crew {
  Shared<L>& shared;
  const Reader<L> reader;
  const bool walks, reads;
  const int number, threads;
  int turn = 0;  // of edges and table
  __device__ Crew(Shared<L>& shared_, const Utterance& u, int side, const Half<L::F>& half,
                  int number_, int warps, int warp, int lane, bool walks_, bool reads_)
      : shared(shared_),
        reader(u, side, half, L::kApart ? warp - warps : warp, warps, lane),
        walks(walks_), reads(reads_), number(number_),
        threads(32 * (L::kApart ? warps + kReaders : warps)) {}
  __device__ const Num* emissions(int f) const {
    return shared.table.of(turn, reader.count) + f * reader.count;
  }

  // Steps begin, begin + by, ...; after the last of them comes step `then`. The table
  // has the first already unless `anew`. `walk` does a step.
  template <class Walk>
  __device__ __forceinline__ void steps(int begin, int count, int by, int then, bool anew,
                                        Walk walk) {
    constexpr bool kApart = L::kApart;
    const bool has_two = Table<L>::has_two(reader.count);
    auto nth = [&](int s) { return s < count ? begin + s * by : then + (s - count) * by; };
    typename Reader<L>::Asked now, ahead;
    if (reads && kApart) reader.ask(now, nth(anew ? 0 : 1));
    for (int s = anew ? -1 : 0; s < count; ++s) {
      if (reads) reader.ask(ahead, nth(kApart ? s + 2 : s + 1));
      if (walks && s >= 0) walk(begin + s * by);
      if (!has_two) meet_crew(3, number, threads);
      if (reads)
        reader.answer(kApart ? now : ahead, shared.table.of(turn + 1, reader.count),
                      nth(s + 1));
      meet_crew(s < 0 ? 2 : 4, number, threads);
      if (kApart) now = ahead;
      ++turn;
    }
  }
};

}  // namespace ctc
