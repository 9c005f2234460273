// One utterance as the kernel is given it, and the check of all that it is indexed by.
#pragma once

#include <algorithm>
#include <cstring>

#include "numbers.h"

namespace jax_ctc {

template <typename S>
struct Utterance {
  const S* scores;          // [T, V]
  const int32_t* ids;       // [U + 1]: the class of each label, then the blank's
  const uint8_t* can_skip;  // [U]: may label[n-1] step straight to label[n]?
  int T, V, U;              // as padded
  bool normalise;           // scores are logits, not log-probabilities
  int frames;               // within 0..T
  int labels;               // within 0..U; -1: no path to look for
  float* log_z;
  S* gradient;  // [T, V], or null

  // Take the lengths; what cannot be indexed by has no path.
  void measure(int32_t num_frames, int32_t num_labels) {
    const auto is_class = [&](int32_t id) { return 0 <= id && id < V; };
    frames = std::clamp(num_frames, 0, T);
    labels =
        num_frames == frames && 0 <= num_labels && num_labels <= U ? num_labels : -1;
    if (!is_class(ids[U]) || !std::all_of(ids, ids + std::max(labels, 0), is_class)) {
      labels = -1;
    }
  }

  const S* row(int64_t frame) const { return scores + frame * V; }

  // Write the gradient 0 from a frame on.
  void clear_gradient(int64_t from, int64_t to) const {
    if (gradient && to > from) {
      std::memset(static_cast<void*>(gradient + from * V), 0,
                  size_t(to - from) * size_t(V) * sizeof(S));
    }
  }
};

}  // namespace jax_ctc
