// One utterance, and the frames that a walk from one of its ends goes through.
//
// An utterance is walked from both ends to the middle. From the end it is the utterance
// in the mirror, labels and frames in reverse: place n of the mirrored walk is blank
// N - n and label N - 1 - n, and the same code serves both.
#pragma once
#include "numbers.h"

namespace ctc {

struct Dims {
  int B, frames, V, U;
  int group, Q;  // frames of a group, a multiple of 8; groups of a walk, at most
  bool normalise;
  int kind;
  __device__ explicit Dims(const int* d)
      : B(d[0]), frames(d[1]), V(d[2]), U(d[3]), group(d[4]), Q(d[5]),
        normalise(d[6] != 0), kind(d[7]) {}
  // Pairs that a walk keeps: a column for each group, the middle, and what that lost.
  __device__ size_t kept() const { return (size_t)(Q + 2) * (U + 1); }
};

struct Utterance {
  const char* __restrict__ scores;
  const float* __restrict__ peaks;
  const int* __restrict__ ids;
  const unsigned char* __restrict__ skips;
  int V, T, N, blank_id, kind, places;
  __device__ Utterance(const void* all_scores, const float* all_peaks, const int* all_ids,
                       const unsigned char* all_skips, const int* lengths,
                       const int* counts, const Dims& d, int b)
      : scores((const char*)all_scores +
               (size_t)b * d.frames * d.V * (d.kind == kFloat32 ? 4 : 2)),
        peaks(all_peaks + (size_t)b * d.frames),
        ids(all_ids + (size_t)b * (d.U + 1)),
        skips(all_skips + (size_t)b * d.U),
        V(d.V), T(min(max(lengths[b], 0), d.frames)), N(min(counts[b], d.U)),
        blank_id(ids[d.U]), kind(d.kind), places(d.U + 1) {}

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

// Frames of a side's half, nearest to its end first, in steps of F. The first are `pad`
// frames that are none, in which the start stays what it is; all are a multiple of 8.
template <int F>
struct Half {
  int side, T, length, steps, pad;
  __device__ Half(int side_, int T_)
      : side(side_), T(T_), length(side ? T / 2 : T - T / 2),
        steps((length + 7) / 8 * (8 / F)), pad(steps * F - length) {}
  __device__ int frame(int step, int f) const {
    const int i = min(max(step * F + f - pad, 0), max(length - 1, 0));
    return max(side ? T - 1 - i : i, 0);
  }
  // From which f on the frames of a step are any.
  __device__ int first(int step) const { return pad - step * F; }
};

}  // namespace ctc
