// An utterance's lattice in memory: rows of states, and the emissions that move them.
#pragma once

#include <algorithm>
#include <cmath>

#include "frames.h"
#include "memory.h"
#include "rows.h"
#include "utterance.h"

namespace jax_ctc {

constexpr int64_t kKeepBytes = 1 << 20;  // of a half's rows: about a second-level cache
// log p below this counts as impossible: jax_ctc/_numbers/extended.py.
constexpr double kLogCutoff = (kZero + 128) * kLn2;

// At or below this exponent a number is 0. Paths are counted as well as weighed, so a
// sum of very many very small ones may grow by up to 42 bits in 16 frames.
inline int32_t zero_limit(int frames) {
  return int32_t(kZero + 128 + std::min<int64_t>(4 * int64_t(frames), 1 << 29));
}

inline int padded_width(int labels) { return (labels + 1 + kPad - 1) / kPad * kPad; }

// How many frames are walked at a time: all, if `bytes` a frame are few enough.
inline int chunk_of(int count, int64_t bytes) {
  if (count * bytes <= kKeepBytes) return std::max(count, 1);
  const int root = int(std::sqrt(double(count)));
  return std::min(count, (root + kRenormalise - 1) / kRenormalise * kRenormalise);
}

// Some rows of one width, one after the other.
class Rows {
 public:
  void lay_out(Parts<float>& floats, Parts<int32_t>& ints, int64_t count, int width) {
    width_ = width;
    size_ = row_size(width);
    m_ = floats.take(count * size_);
    e_ = ints.take(count * size_);
  }
  Row at(int64_t i) const { return {m_ + i * size_ + kPad, e_ + i * size_ + kPad}; }
  void copy(int64_t from, int64_t to) const {
    std::memcpy(m_ + to * size_, m_ + from * size_, size_ * sizeof(float));
    std::memcpy(e_ + to * size_, e_ + from * size_, size_ * sizeof(int32_t));
  }
  // As it is before the first frame: blank[0] = 1.
  void start(int64_t i) const {
    clear(at(i), width_);
    at(i).e[0] = 0;
  }
  // Make what lies beside the states 0, in rows that are written before they are read.
  void clear_pads(int64_t first, int64_t last) const {
    for (int64_t i = first; i <= last; ++i) jax_ctc::clear_pads(at(i), width_);
  }

 private:
  int width_ = 0;
  int64_t size_ = 0;
  float* m_ = nullptr;
  int32_t* e_ = nullptr;
};

// The emissions of the frames of a chunk, and what they are read by.
struct Emissions {
  float* m;  // [K, width]
  int32_t *e, *ids, *skip;

  void lay_out(Parts<float>& floats, Parts<int32_t>& ints, int chunk, int width) {
    m = floats.take(int64_t(chunk) * width);
    e = ints.take(int64_t(chunk) * width);
    ids = ints.take(width);
    skip = ints.take(width + kPad);
  }

  // The labels of an utterance, from its left or from its right.
  template <typename S>
  void begin(const Utterance<S>& u, bool is_mirrored, int width) const {
    const int N = u.labels;
    for (int n = 0; n < width + kPad; ++n) {
      const bool is_inside = 0 < n && n < N;
      skip[n] = is_inside && u.can_skip[is_mirrored ? N - n : n] ? kAnything : kZero;
      if (n < width) ids[n] = n < N ? u.ids[is_mirrored ? N - 1 - n : n] : u.ids[u.U];
    }
  }

  // Read frame i of the chunk, relative to its best needed class, which is returned.
  template <typename S>
  float read(const S* scores, int i, int width) const {
    float* y = m + int64_t(i) * width;
    const float best = gather(scores, ids, y, width);
    const float from = best > -kInf ? best : 0;
    split(y, from, e + int64_t(i) * width, width);
    return from;
  }
};

template <typename S>
bool has_bad_frame(const Utterance<S>& u) {
  float peak;
  for (int t = 0; t < u.frames; ++t) {
    if (!find_peak(u.row(t), u.V, &peak)) return true;
  }
  return false;
}

}  // namespace jax_ctc
