// An utterance, walked from both ends to the middle and back.
//
//   there: alpha of each half of its frames, from its end of the time axis
//   back:  what the other half brought to the middle goes on as beta through this one
//
// The right half is the left half of the mirrored problem, frames and labels in
// reverse: so one code serves both, and two threads can walk the two at once with the
// same arithmetic. Rows of alpha are kept where they are few; of many only every K-th,
// K near their square root, and K frames at a time are walked anew on the way back.
#pragma once

#include <cmath>
#include <utility>

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

// Where posteriors of labels become posteriors of classes.
struct Occupancy {
  float *product, *sum;  // of each state, the blanks at `width`; of each needed class
  int32_t *place, *ids;  // where a label's and the blank's sum is; whose it is
  int size;              // of `sum`
  bool is_dense;         // sum[v] is of class v

  void lay_out(Parts<float>& floats, Parts<int32_t>& ints, int width) {
    product = floats.take(width + kPad);
    sum = floats.take(2 * width);
    place = ints.take(width);
    ids = ints.take(width);
  }

  // Give every class a place; where most classes are needed, each its own.
  void begin(const int32_t* of_label, int num_labels, int V, bool may_be_dense) {
    is_dense = may_be_dense && V <= 2 * num_labels;
    if (is_dense) {
      size = V;
      std::copy(of_label, of_label + num_labels + 1, place);
    } else {
      // Found in sorted order, so that no table of V is needed.
      for (int n = 0; n <= num_labels; ++n) ids[n] = of_label[n];
      std::sort(ids, ids + num_labels + 1);
      size = int(std::unique(ids, ids + num_labels + 1) - ids);
      for (int n = 0; n <= num_labels; ++n) {
        place[n] = int(std::lower_bound(ids, ids + size, of_label[n]) - ids);
      }
    }
    std::fill(sum, sum + size, 0.0f);
  }

  // Sum up products, the blanks' at `width`, by class.
  void gather_up(int num_labels, int width) const {
    sum[place[num_labels]] += product[width];
    for (int n = 0; n < num_labels; ++n) sum[place[n]] += product[n];
  }
};

template <typename S>
class Half {
 public:
  void begin(const Utterance<S>& u, bool is_right) {
    u_ = &u;
    is_right_ = is_right;
    count_ = is_right ? u.frames / 2 : u.frames - u.frames / 2;
    width_ = padded_width(u.labels);
    limit_ = zero_limit(u.frames);
    const int64_t row = row_size(width_);
    // Without a way back no row is looked at again.
    chunk_ = u.gradient ? chunk_of(count_, 8 * (row + width_))
                        : std::clamp(count_, 1, kRenormalise);
    chunks_ = (count_ + chunk_ - 1) / chunk_;
    Parts<float> floats;
    Parts<int32_t> ints;
    lay_out(floats, ints);
    floats = Parts<float>(floats_.reserve(floats.used()));
    ints = Parts<int32_t>(ints_.reserve(ints.used()));
    lay_out(floats, ints);
    for (int i = 1; i <= chunk_; ++i) clear_pads(row_at(i), width_);
    clear(row_at(0), width_);
    row_at(0).e[0] = 0;  // blank[0] = 1 before the first frame
    emissions_.begin(u, is_right, width_);
    if (u.gradient) occupancy_.begin(emissions_.ids, u.labels, u.V, !kIsNarrow);
    shift_ = Shift();
  }

  // Walk alpha to the middle; false if a frame is bad.
  bool there() {
    const auto& u = *u_;
    for (int frame = 0, i = 0; frame < count_; ++frame, ++i) {
      if (i == chunk_) {
        copy(row_at(chunk_), row_at(0));
        i = 0;
      }
      if (i == 0 && u.gradient) copy(row_at(0), saved_at(frame / chunk_));
      const S* x = u.row(place(frame));
      float peak, factor = 0;
      if (!find_peak(x, u.V, &peak)) return false;
      if (u.normalise) {
        const float rest = exps(x, peak, scratch_, u.V);
        shift_.divide(rest);
        factor = 1 / (1 + rest);
      }
      if (u.gradient) {
        S* g = u.gradient + place(frame) * u.V;
        if (u.normalise) {
          scale(scratch_, factor, g, u.V);
        } else {
          u.clear_gradient(place(frame), place(frame) + 1);
        }
        if constexpr (kIsNarrow)
          peaks_[2 * frame] = peak, peaks_[2 * frame + 1] = factor;
      }
      shift_.add(advance(frame, i), u.normalise ? peak : 0);
    }
    renormalise(last(), limit_);
    return true;
  }

  // Walk beta from the middle, and take the posteriors from the gradient.
  void back() {
    const int N = u_->labels;
    for (int frame = count_ - 1; frame >= 0; --frame) {
      const int i = frame % chunk_, chunk = frame / chunk_;
      if (i == chunk_ - 1 &&
          chunk < chunks_ - 1) {  // there, all others were overwritten
        copy(saved_at(chunk), row_at(0));
        for (int k = 0; k < chunk_; ++k) advance(frame - i + k, k);
      }
      const Row alpha = row_at(i + 1);
      const int64_t y = int64_t(i) * width_;
      const float sum =
          beta_step(alpha.m, alpha.e, from_.m, from_.e, to_.m, to_.e, emissions_.m + y,
                    emissions_.e + y, emissions_.skip, occupancy_.product, N, width_);
      std::swap(from_, to_);
      if (i % kRenormalise == 0) renormalise(from_, limit_);
      occupancy_.gather_up(N, width_);
      subtract_posteriors(frame, 1 / sum);
    }
  }

  // log p, where the halves meet; true if there is a way back.
  static bool meet(Half& left, Half& right) {
    const auto& u = *left.u_;
    const int N = u.labels, width = left.width_;
    mirror(right.last(), left.from_, N, 0, width);
    const int32_t e =
        largest_exponent(left.last().e, left.from_.e, left.emissions_.skip, width);
    float log_z = -kInf;
    if (e > left.limit_) {
      mirror(right.last(), left.from_, N, e, width);
      mirror(left.last(), right.from_, N, e, width);
      clear(left.to_, width);
      clear(right.to_, width);
      const double z = left.product_with_beta();
      const double value =
          std::log(z) + e * kLn2 + left.shift_.total() + right.shift_.total();
      log_z = value < kLogCutoff ? -kInf : value < 3e38 ? float(value) : kInf;
    }
    *u.log_z = log_z;
    return std::isfinite(log_z);
  }

 private:
  void lay_out(Parts<float>& floats, Parts<int32_t>& ints) {
    const auto& u = *u_;
    const int64_t rows = chunk_ + 3 + (u.gradient ? chunks_ : 0);  // from, to and saved
    rows_ = {floats.take(rows * row_size(width_)), ints.take(rows * row_size(width_))};
    from_ = row_at(chunk_ + 1);
    to_ = row_at(chunk_ + 2);
    emissions_.lay_out(floats, ints, chunk_, width_);
    scratch_ = floats.take(std::max(u.V, width_));
    if (u.gradient) {
      occupancy_.lay_out(floats, ints, width_);
    } else {
      occupancy_.product = floats.take(width_ + kPad);
    }
    if (u.gradient && kIsNarrow) peaks_ = floats.take(2 * int64_t(count_));
  }

  Row row_at(int64_t i) const {
    const int64_t at = i * row_size(width_) + kPad;
    return {rows_.m + at, rows_.e + at};
  }
  Row saved_at(int chunk) const { return row_at(chunk_ + 3 + int64_t(chunk)); }
  // Alpha in the middle: after the last frame, or before the first if there is none.
  Row last() const { return row_at(count_ - (chunks_ > 0 ? chunks_ - 1 : 0) * chunk_); }

  void copy(Row from, Row to) const {
    std::memcpy(to.m - kPad, from.m - kPad, row_size(width_) * sizeof(float));
    std::memcpy(to.e - kPad, from.e - kPad, row_size(width_) * sizeof(int32_t));
  }
  void renormalise(Row row, int32_t limit) const {
    jax_ctc::renormalise(row.m, row.e, limit, width_);
  }

  // The frame of the utterance that is this half's.
  int64_t place(int frame) const { return is_right_ ? u_->frames - 1 - frame : frame; }

  // Alpha after frame i of a chunk, in row i + 1; returns what its emissions are over.
  float advance(int frame, int i) const {
    const float best = emissions_.read(u_->row(place(frame)), i, width_);
    const Row row = row_at(i + 1), before = row_at(i);
    const int64_t y = int64_t(i) * width_;
    alpha_step(before.m, before.e, row.m, row.e, emissions_.m + y, emissions_.e + y,
               emissions_.skip, u_->labels, width_);
    if (i % kRenormalise == kRenormalise - 1) renormalise(row, limit_);
    return best;
  }

  // sum of alpha * beta in the middle, given `from`.
  float product_with_beta() const {
    const Row alpha = last();
    return beta_step(alpha.m, alpha.e, from_.m, from_.e, to_.m, to_.e, emissions_.m,
                     emissions_.e, emissions_.skip, occupancy_.product, u_->labels,
                     width_);
  }

  void subtract_posteriors(int frame, float share) {
    const auto& u = *u_;
    float* sum = occupancy_.sum;
    S* g = u.gradient + place(frame) * u.V;
    const int size = occupancy_.size;
    if constexpr (kIsNarrow) {
      subtract_narrow(frame, share, g);
    } else if (occupancy_.is_dense) {
      subtract(g, sum, share, size);
    } else {
      for (int c = 0; c < size; ++c) {
        g[occupancy_.ids[c]] -= sum[c] * share;
        sum[c] = 0;
      }
    }
  }

  // A difference is taken before it is narrowed, so the softmax of the needed classes
  // is computed once more.
  void subtract_narrow(int frame, float share, S* g) {
    const int size = occupancy_.size;
    float *sum = occupancy_.sum, *softmax = occupancy_.product;
    gather(u_->row(place(frame)), occupancy_.ids, scratch_, size);
    exps(scratch_, peaks_[2 * frame], softmax, size);
    const float factor = peaks_[2 * frame + 1];
    for (int c = 0; c < size; ++c) {
      store(&g[occupancy_.ids[c]], softmax[c] * factor - sum[c] * share);
      sum[c] = 0;
    }
  }

  static constexpr bool kIsNarrow = sizeof(S) == 2;

  const Utterance<S>* u_ = nullptr;
  bool is_right_ = false;
  int count_ = 0, width_ = 0, chunk_ = 1, chunks_ = 0;
  int32_t limit_ = kZero;
  Row rows_{}, from_{}, to_{};
  Emissions emissions_{};
  Occupancy occupancy_{};
  float *scratch_ = nullptr, *peaks_ = nullptr;
  Shift shift_;
  Buffer<float> floats_;
  Buffer<int32_t> ints_;
};

}  // namespace jax_ctc
