// Back: each walk goes on through the other's half, meets what the other brought there,
// and the gradient is written. Three crews of warps, in turns of a group of steps:
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
#include "write.h"

namespace ctc {

// The group of steps from `first` of the other's walk once more.
template <class L>
__device__ __forceinline__ void again(Crew<L>& crew, Walker<L>& walker, int first,
                                      int count, int then, bool anew, Pair* rows) {
  const Places<L>& who = walker.who;
  Pair* row = rows + who.n;
  crew.steps(first, count, 1, then, anew, [&](int c) {
    walker.step(crew.shared.edges, crew.turn, L::is_due(c), [&] {
#pragma unroll
      for (int f = 0; f < L::F; ++f) {
        walker.frame(crew.emissions(f), [&](int r, Num blank, Num label) {
          if (who.owns(r)) row[r] = {blank.m, blank.e, label.m, label.e};
        });
        row += walker.places;
      }
    });
  });
}

// alpha * beta of a place over 2^scale; 2^42 at most, and 0 where either is.
__device__ __forceinline__ float product(Num a, Num b, int scale) {
  return a.m * b.m * pow2(max(a.e + b.e, kZero) - scale);
}

// The group of steps onward, from its last. Place n meets blank N - n and label N - n - 1
// of what was laid down, which is asked for kAhead frames before.
template <class L>
__device__ __forceinline__ void onward(Crew<L>& crew, Walker<L>& walker, int first,
                                       int count, bool anew, int N, int scale,
                                       const Pair* rows, Occupancy* occupied) {
  constexpr int R = L::R, F = L::F;
  constexpr int kAhead = !L::kApart ? 0 : F < 8 ? F / 2 : 2;  // divides F
  constexpr int kHeld = kAhead > 0 ? kAhead : 1;
  const Places<L>& who = walker.who;
  const int places = walker.places, last = first + count - 1, j = N - who.n;
  Num blank[kHeld][R], label[kHeld][R];
#pragma unroll
  for (int f = 0; f < kHeld; ++f)
#pragma unroll
    for (int r = 0; r < R; ++r) blank[f][r] = label[f][r] = none();
  const Pair* theirs = rows + (size_t)(count * F - 1) * places + j;
  Occupancy* ours = occupied + (size_t)(count * F - 1) * places + who.n;
  auto ask = [&](int f, bool is_there) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      read_if(is_there && j - r >= 0, blank[f % kHeld][r], &theirs[-r].bm);
      read_if(is_there && j - r >= 1, label[f % kHeld][r], &theirs[-r - 1].lm);
    }
    theirs -= places;
  };
  if (crew.walks)
#pragma unroll
    for (int k = 1; k <= kAhead; ++k) ask(F - k, true);
  crew.steps(last, count, -1, first - 1, anew, [&](int c) {
    const bool is_due = L::is_due(crew.reader.half.steps - 1 - c);
    walker.step(crew.shared.edges, crew.turn, is_due, [&] {
#pragma unroll
      for (int f = F - 1; f >= 0; --f) {
        if (kAhead == 0) ask(f, true);
        walker.frame(crew.emissions(f), [](int, Num, Num) {});
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const Occupancy o = {product(walker.at.blank[r], blank[f % kHeld][r], scale),
                               product(walker.at.label[r], label[f % kHeld][r], scale)};
          write_if(who.owns(r), &ours[r], o);
        }
        ours -= places;
        if (kAhead > 0) ask(f - kAhead + (f < kAhead ? F : 0), f >= kAhead || c > first);
      }
    });
  });
}

// A block a half: the frames that the walk from the other side has been through.
template <class L>
__device__ void back(const void* __restrict__ scores, const float* __restrict__ peaks,
                     const float* __restrict__ rests, const int* __restrict__ ids,
                     const unsigned char* __restrict__ skips,
                     const int* __restrict__ lengths, const int* __restrict__ counts,
                     const int* __restrict__ dims, const double* __restrict__ shifts,
                     const Pair* __restrict__ kept, float* __restrict__ log_z,
                     void* all_gradients, Pair* rows, Occupancy* occupied, Pair* parked,
                     int* scratch) {
  constexpr bool kApart = L::kApart;
  using Scribe = Writer<L::R == 1 ? 4 : L::R < 8 ? 2 : 1>;
  __shared__ Shared<L> shared[kApart ? 2 : 1];
  __shared__ Met met;
  const Dims d(dims);
  const int b = blockIdx.x / 2, side = blockIdx.x % 2, other = 1 - side;
  const int warps = L::warps(d.U + 1), lane = threadIdx.x % 32;
  const Utterance u(scores, peaks, ids, skips, lengths, counts, d, b);
  const Half<L::F> half(other, u.T);
  const Pair* starts = kept + (size_t)(2 * b + other) * d.kept();
  const Pair* middle = kept + (size_t)(2 * b + side) * d.kept() + (size_t)d.Q * u.places;
  char* gradient =
      (char*)all_gradients + (size_t)b * d.frames * d.V * (d.kind == kFloat32 ? 4 : 2);
  rows += (size_t)blockIdx.x * 2 * d.group * u.places;
  occupied += (size_t)blockIdx.x * 2 * d.group * u.places;
  parked += (size_t)blockIdx.x * u.places;

  // Groups of this walk's steps, the last of which is next to the middle.
  const int steps = d.group / L::F;
  const int groups = u.N < 0 ? 0 : (half.steps + steps - 1) / steps;
  auto has = [&](int g) { return g >= 0 && g < groups; };
  auto count_of = [&](int g) { return min(steps, half.steps - g * steps); };
  auto place_of = [&](int g) { return (size_t)((g & 1) * d.group) * u.places; };

  const int crew_warps = kApart ? warps + kReaders : warps, warp = warp_index();
  const int number = kApart ? min(warp / crew_warps, 2) : 0;  // of the crew
  const int member = warp - number * crew_warps;
  const Scribe writer(u, side, d.normalise, rests + (size_t)b * d.frames, gradient,
                      scratch + blockIdx.x * Scribe::scratch(u.places), member,
                      kApart ? kWriters : warps, lane);

  // A role does its part of each turn. At its end neighbours in the row of crews meet:
  // writers have the next turn's input from the crew onward, and that from the crew again.
  auto turns = [&](auto role) {
    for (int i = 0; i < groups + 2; ++i) {
      role(i, groups - 1 - i);
      if (!kApart) meet_block(7);
      if (kApart && number > 0) meet_crew(5, 4, 32 * (crew_warps + kWriters));
      if (kApart && number < 2) meet_crew(6, 3, 64 * crew_warps);
      if (i == 0 && !met.alive) return writer.erase(half);
    }
  };
  auto go_again = [&](Crew<L>& crew, Walker<L>& walker, int g, bool anew) {
    walker.load(starts + (size_t)g * u.places);
    again(crew, walker, g * steps, count_of(g), (g - 1) * steps, anew, rows + place_of(g));
  };
  auto go_onward = [&](Crew<L>& crew, Walker<L>& walker, int g, bool anew) {
    onward(crew, walker, g * steps, count_of(g), anew, u.N, met.scale, rows + place_of(g),
           occupied + place_of(g));
  };
  auto write = [&](int i, int g) {
    if (i == 0) writer.sort();
    if (i == 1 && member == 0) writer.find_runs();
    if (i == 0 && member == 0) {
      const Met found = meet(kept, shifts, skips, u.N, d, b, lane);
      if (lane == 0) met = found;
      if (lane == 0 && side == 0) log_z[b] = found.log_z;
    }
    if (has(g)) writer.write(half, g * steps, count_of(g) * L::F, occupied + place_of(g));
  };

  if constexpr (!kApart) {
    turns([&](int i, int g) {
      if (has(g)) {
        Walker<L> walker(u, other, warp, lane);
        Crew<L> crew(shared[0], u, other, half, 1, warps, warp, lane, true, true);
        go_again(crew, walker, g, true);
      }
      if (has(g + 1)) {
        Walker<L> walker(u, side, warp, lane);
        Crew<L> crew(shared[0], u, side, half, 1, warps, warp, lane, true, true);
        walker.load(i == 1 ? middle : parked);
        go_onward(crew, walker, g + 1, true);
        walker.store(parked);
      }
      write(i, g + 2);
    });
  } else if (number == 2) {
    turns([&](int i, int g) { write(i, g + 2); });
  } else if (number == 1 && member < warps) {
    Walker<L> walker(u, side, member, lane);
    Crew<L> crew(shared[1], u, side, half, 2, warps, member, lane, true, false);
    if (has(0)) walker.load(middle);
    turns([&](int i, int g) {
      if (has(g + 1)) go_onward(crew, walker, g + 1, i == 1);
    });
  } else if (number == 0 && member < warps) {
    Walker<L> walker(u, other, member, lane);
    Crew<L> crew(shared[0], u, other, half, 1, warps, member, lane, true, false);
    turns([&](int i, int g) {
      if (has(g)) go_again(crew, walker, g, i == 0);
    });
  } else {
    Crew<L> crew(shared[number], u, number == 0 ? other : side, half, 1 + number, warps,
                 member, lane, false, true);
    turns([&](int i, int g) {
      g += number;
      if (!has(g)) return;
      const int begin = g * steps + (number == 0 ? 0 : count_of(g) - 1);
      const int then = number == 0 ? (g - 1) * steps : g * steps - 1;
      crew.steps(begin, count_of(g), number == 0 ? 1 : -1, then, i == number, [](int) {});
    });
  }
}

}  // namespace ctc
