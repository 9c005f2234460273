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

#include <utility>

#include "lattice.h"
#include "middle.h"

namespace jax_ctc {

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
    // Without a way back no row is looked at again.
    chunk_ = u.gradient ? chunk_of(count_, 8 * (row_size(width_) + width_))
                        : std::clamp(count_, 1, kRenormalise);
    chunks_ = (count_ + chunk_ - 1) / chunk_;
    Parts<float> floats;
    Parts<int32_t> ints;
    lay_out(floats, ints);
    floats = Parts<float>(floats_.reserve(floats.used()));
    ints = Parts<int32_t>(ints_.reserve(ints.used()));
    lay_out(floats, ints);
    rows_.clear_pads(1, chunk_);
    rows_.start(0);
    emissions_.begin(u, is_right, width_);
    std::fill_n(low_[0] - kPad, 2 * row_size(width_), 0.0f);
    if (u.gradient) occupancy_.begin(emissions_.ids, u.labels, u.V, !kIsNarrow);
    shift_ = Shift();
  }

  // Walk alpha to the middle; false if a frame is bad.
  bool there() {
    const auto& u = *u_;
    for (int frame = 0, i = 0; frame < count_; ++frame, ++i) {
      if (i == chunk_) {
        rows_.copy(chunk_, 0);
        i = 0;
      }
      if (i == 0 && u.gradient) rows_.copy(0, saved(frame / chunk_));
      const S* x = u.row(place(frame));
      float peak, factor = 0;
      if (!find_peak(x, u.V, &peak)) return false;
      if (u.normalise) {
        const S* next = u.row(place(std::min(frame + 1, count_ - 1)));
        const float rest = exps(x, next, peak, scratch_, u.V);
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
      shift_.add(advance_carefully(frame, i), u.normalise ? peak : 0);
    }
    renormalise_carefully(last());
    return true;
  }

  // Walk beta from the middle, and take the posteriors from the gradient.
  void back() {
    const int N = u_->labels;
    for (int frame = count_ - 1; frame >= 0; --frame) {
      const int i = frame % chunk_, chunk = frame / chunk_;
      if (i == chunk_ - 1 &&
          chunk < chunks_ - 1) {  // there, all others were overwritten
        rows_.copy(saved(chunk), 0);
        for (int k = 0; k < chunk_; ++k) advance(frame - i + k, k);
      }
      const Row alpha = rows_.at(i + 1);
      const int64_t y = int64_t(i) * width_;
      const float sum = beta_step(alpha.m, alpha.e, from_.m, from_.e, low_[0], to_.m,
                                  to_.e, low_[1], emissions_.m + y, emissions_.e + y,
                                  emissions_.skip, occupancy_.product, N, width_);
      std::swap(from_, to_);
      std::swap(low_[0], low_[1]);
      if (i % kRenormalise == 0) renormalise_carefully(from_);
      occupancy_.gather_up(N, width_);
      subtract_posteriors(frame, sum);
    }
  }

  // log p, where the halves meet; true if there is a way back.
  static bool meet(Half& left, Half& right) {
    const auto& u = *left.u_;
    const int N = u.labels, width = left.width_;
    const Sum z =
        sum_in_middle(left.alpha(), right.alpha(), left.emissions_.skip, N, width);
    float log_z = -kInf;
    if (z.e > left.limit_) {
      const double value =
          std::log(z.m) + z.e * kLn2 + left.shift_.total() + right.shift_.total();
      log_z = value < kLogCutoff ? -kInf : value < 3e38 ? float(value) : kInf;
    }
    *u.log_z = log_z;
    if (!std::isfinite(log_z)) return false;
    if (u.gradient) {
      left.turn_round(right.alpha(), z.e);
      right.turn_round(left.alpha(), z.e);
      std::swap(left.low_[0], left.low_[1]);
      std::swap(right.low_[0], right.low_[1]);
    }
    return true;
  }

 private:
  void lay_out(Parts<float>& floats, Parts<int32_t>& ints) {
    const auto& u = *u_;
    rows_.lay_out(floats, ints, saved(u.gradient ? chunks_ : 0), width_);
    from_ = rows_.at(chunk_ + 1);
    to_ = rows_.at(chunk_ + 2);
    low_[0] = floats.take(2 * row_size(width_)) + kPad;
    low_[1] = low_[0] + row_size(width_);
    emissions_.lay_out(floats, ints, chunk_, width_);
    scratch_ = floats.take(std::max(u.V, width_));
    if (u.gradient) occupancy_.lay_out(floats, ints, width_);
    if (u.gradient && kIsNarrow) peaks_ = floats.take(2 * int64_t(count_));
  }

  // Rows of a chunk, the one before it as row 0; `from` and `to`; then those saved.
  int64_t saved(int chunk) const { return chunk_ + 3 + int64_t(chunk); }
  // Alpha in the middle: after the last frame, or before the first if there is none.
  Row last() const { return rows_.at(count_ - std::max(chunks_ - 1, 0) * chunk_); }
  Alpha alpha() const { return {last(), low_[0]}; }

  void renormalise_carefully(Row row) const {
    renormalise(row.m, row.e, low_[0], limit_, width_);
  }

  // The other half's alpha is this one's beta. Its low part goes to low_[1]: in low_[0]
  // is that of this half's alpha, which the other half has yet to read.
  void turn_round(Alpha other, int32_t exponent) {
    mirror(other.row, other.low, from_, low_[1], u_->labels, exponent, width_);
    clear(to_, width_);
  }

  // The frame of the utterance that is this half's.
  int64_t place(int frame) const { return is_right_ ? u_->frames - 1 - frame : frame; }

  // Alpha after frame i of a chunk, in row i + 1; returns what its emissions are over.
  float advance_carefully(int frame, int i) {
    const float best = emissions_.read(u_->row(place(frame)), i, width_);
    const Row row = rows_.at(i + 1), before = rows_.at(i);
    const int64_t y = int64_t(i) * width_;
    careful_alpha_step(before.m, before.e, low_[0], row.m, row.e, low_[1],
                       emissions_.m + y, emissions_.e + y, emissions_.skip, u_->labels,
                       width_);
    std::swap(low_[0], low_[1]);
    if (is_last_before_renormalising(i)) renormalise_carefully(row);
    return best;
  }

  // The same once more, without the low parts: what a chunk of about sqrt(T) frames
  // loses is less than gradients have to keep.
  void advance(int frame, int i) {
    emissions_.read(u_->row(place(frame)), i, width_);
    const Row row = rows_.at(i + 1), before = rows_.at(i);
    const int64_t y = int64_t(i) * width_;
    alpha_step(before.m, before.e, row.m, row.e, emissions_.m + y, emissions_.e + y,
               emissions_.skip, u_->labels, width_);
    if (is_last_before_renormalising(i)) renormalise(row.m, row.e, limit_, width_);
  }

  static bool is_last_before_renormalising(int i) {
    return i % kRenormalise == kRenormalise - 1;
  }

  void subtract_posteriors(int frame, float whole) {
    const auto& u = *u_;
    float* sum = occupancy_.sum;
    S* g = u.gradient + place(frame) * u.V;
    const int size = occupancy_.size;
    if constexpr (kIsNarrow) {
      subtract_narrow(frame, whole, g);
    } else if (occupancy_.is_dense) {
      subtract(g, sum, whole, size);
    } else {
      for (int c = 0; c < size; ++c) {
        g[occupancy_.ids[c]] -= sum[c] / whole;
        sum[c] = 0;
      }
    }
  }

  // A difference is taken before it is narrowed, so the softmax of the needed classes
  // is computed once more.
  void subtract_narrow(int frame, float whole, S* g) {
    const int size = occupancy_.size;
    float *sum = occupancy_.sum, *softmax = occupancy_.product;
    gather(u_->row(place(frame)), occupancy_.ids, scratch_, size);
    exps(scratch_, nullptr, peaks_[2 * frame], softmax, size);
    const float factor = peaks_[2 * frame + 1];
    for (int c = 0; c < size; ++c) {
      store(&g[occupancy_.ids[c]], softmax[c] * factor - sum[c] / whole);
      sum[c] = 0;
    }
  }

  static constexpr bool kIsNarrow = sizeof(S) == 2;

  const Utterance<S>* u_ = nullptr;
  bool is_right_ = false;
  int count_ = 0, width_ = 0, chunk_ = 1, chunks_ = 0;
  int32_t limit_ = kZero;
  Rows rows_;
  Row from_{}, to_{};
  float* low_[2] = {nullptr, nullptr};  // low parts of alpha, then beta: now and next
  Emissions emissions_{};
  Occupancy occupancy_{};
  float *scratch_ = nullptr, *peaks_ = nullptr;
  Shift shift_;
  Buffer<float> floats_;
  Buffer<int32_t> ints_;
};

}  // namespace jax_ctc
