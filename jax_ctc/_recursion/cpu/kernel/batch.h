// A batch of utterances, shared out among threads.
#pragma once

#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "paths.h"
#include "pool.h"
#include "utterance.h"
#include "walk.h"

namespace jax_ctc {

// To wake another thread takes some tens of microseconds, in each of which a thousand
// states are walked: with so few it would come too late.
constexpr double kSoonDone = 1 << 16;

// All arrays are dense, row by row; jax_ctc/_recursion/cpu/__init__.py says what they
// are.
template <typename S>
struct Batch {
  int64_t B, T, V, U;
  bool normalise;
  const S* scores;               // [B, T, V]
  const int32_t* ids;            // [B, U + 1]
  const uint8_t* can_skip;       // [B, U]
  const int32_t* num_labels;     // [B]
  const int32_t* logit_lengths;  // [B]
  float* log_z;                  // [B]
  S* gradient;                   // [B, T, V], or null

  Utterance<S> at(int64_t b) const {
    const int64_t size = T * V;
    Utterance<S> u{scores + b * size,
                   ids + b * (U + 1),
                   can_skip + b * U,
                   int(T),
                   int(V),
                   int(U),
                   normalise,
                   0,
                   0,
                   log_z + b,
                   gradient ? gradient + b * size : nullptr};
    u.measure(logit_lengths[b], num_labels[b]);
    return u;
  }
};

// Pages that nobody has touched are given one by one when they are written: 16,000 for
// 65 MB. Asked for in advance, they come 512 at a time.
inline void expect_writes(void* start, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t(1) << 21;
  const uintptr_t address = reinterpret_cast<uintptr_t>(start);
  const uintptr_t first = (address + kHuge - 1) & ~(kHuge - 1);
  const uintptr_t end = (address + uintptr_t(bytes)) & ~(kHuge - 1);
  if (start && end >= first + 8 * kHuge) {
    madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // a hint only
  }
#else
  (void)start, (void)bytes;
#endif
}

// An utterance that needs no walk is finished here; true if one is needed.
template <typename S>
bool begin(const Utterance<S>& u, Half<S>& left, Half<S>& right) {
  u.clear_gradient(u.frames, u.T);
  if (u.labels >= 0 && u.frames > 0) {
    left.begin(u, false);
    right.begin(u, true);
    return true;
  }
  *u.log_z = u.labels == 0 ? 0 : -kInf;
  if (has_bad_frame(u)) *u.log_z = std::numeric_limits<float>::quiet_NaN();
  u.clear_gradient(0, u.frames);
  return false;
}

// Where the halves meet; true if there is a way back.
template <typename S>
bool middle(const Utterance<S>& u, Half<S>& left, Half<S>& right, bool is_good) {
  const bool is_alive = is_good && Half<S>::meet(left, right);
  if (!is_good) *u.log_z = std::numeric_limits<float>::quiet_NaN();
  if (!is_alive) u.clear_gradient(0, u.frames);
  return is_alive && u.gradient;
}

template <typename S>
void walk(const Utterance<S>& u, Half<S>& left, Half<S>& right) {
  if (!begin(u, left, right)) return;
  if (middle(u, left, right, left.there() && right.there())) {
    left.back();
    right.back();
  }
}

// How many states are walked; four classes take as long as one.
template <typename S>
double states_of(const std::vector<Utterance<S>>& all) {
  double states = 0;
  for (const Utterance<S>& u : all) {
    const double of_frame = padded_width(u.labels) + u.V / 4;
    states += u.frames * of_frame * (u.gradient ? 3 : 1);
  }
  return states;
}

// Fewer utterances than keep all threads busy: each half is a task, there and back.
template <typename S, typename Pool>
bool walk_by_halves(Pool& pool, const std::vector<Utterance<S>>& all) {
  struct Pair {
    Half<S> half[2];
    bool is_walked = false, is_good[2] = {false, false};
  };
  struct None {};
  const int64_t size = int64_t(all.size());
  std::vector<Pair> pairs(all.size());
  Pair* pair = pairs.data();
  for (int64_t i = 0; i < size; ++i) {
    pair[i].is_walked = begin(all[i], pair[i].half[0], pair[i].half[1]);
  }
  const auto there = [pair](int64_t i, None&) {
    Pair& p = pair[i / 2];
    if (p.is_walked) p.is_good[i % 2] = p.half[i % 2].there();
  };
  if (!share<None>(pool, 2 * size, there)) return false;
  for (int64_t i = 0; i < size; ++i) {
    Pair& p = pair[i];
    p.is_walked = p.is_walked &&
                  middle(all[i], p.half[0], p.half[1], p.is_good[0] && p.is_good[1]);
  }
  const auto back = [pair](int64_t i, None&) {
    if (pair[i / 2].is_walked) pair[i / 2].half[i % 2].back();
  };
  return !all[0].gradient || share<None>(pool, 2 * size, back);
}

// Score a batch; false if memory ran out. Fewer states than `alone` the caller walks
// alone.
template <typename S, typename Pool>
bool score(Pool& pool, const Batch<S>& batch, double alone = kSoonDone) try {
  if (batch.B == 0) return true;
  expect_writes(batch.gradient, batch.B * batch.T * batch.V * int64_t(sizeof(S)));
  std::vector<Utterance<S>> all;
  all.reserve(batch.B);
  for (int64_t b = 0; b < batch.B; ++b) all.push_back(batch.at(b));
  // The longest first, so that no thread is left with one at the end.
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.frames > b.frames; });
  struct Halves {
    Half<S> left, right;
  };
  if (states_of(all) < alone) {
    Halves h;
    for (const Utterance<S>& u : all) walk(u, h.left, h.right);
    return true;
  }
  if (batch.B < 2 * pool.num_threads()) return walk_by_halves(pool, all);
  const Utterance<S>* u = all.data();
  return share<Halves>(pool, batch.B,
                       [u](int64_t i, Halves& h) { walk(u[i], h.left, h.right); });
} catch (const std::bad_alloc&) {
  return false;
}

// Find the most probable paths: states [B, T], and log p in log_z; false as above.
template <typename S, typename Pool>
bool find_paths(Pool& pool, const Batch<S>& batch, int32_t* states) try {
  const auto work = [&batch, states](int64_t b, Path<S>& path) {
    path.find(batch.at(b), states + b * batch.T);
  };
  return batch.B == 0 || share<Path<S>>(pool, batch.B, work);
} catch (const std::bad_alloc&) {
  return false;
}

}  // namespace jax_ctc
