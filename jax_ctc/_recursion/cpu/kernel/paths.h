// The most probable path: the same lattice with the largest term for the sum.
//
// A frame leaves one number a state, how many states back its best way comes from.
// Where these are many, only every K-th row of the lattice is kept, and from the right
// K frames at a time are walked anew, then followed back.
#pragma once

#include "lattice.h"

namespace jax_ctc {

template <typename S>
class Path {
 public:
  // States [T], along the labels: 2n is blank[n], 2n + 1 is label[n].
  void find(const Utterance<S>& u, int32_t* states) {
    u_ = &u;
    const int N = u.labels;
    int t = 0;
    if (N < 0 || u.frames == 0) {
      *u.log_z = N == 0 ? 0 : -kInf;
    } else {
      begin();
      *u.log_z = walk() ? value() : std::numeric_limits<float>::quiet_NaN();
      if (std::isfinite(*u.log_z)) {
        follow(states);
        t = u.frames;
      }
    }
    if (N < 0 && has_bad_frame(u)) *u.log_z = std::numeric_limits<float>::quiet_NaN();
    // Padding stays where the path has ended; without one, states mean nothing.
    for (; t < u.T; ++t) states[t] = 2 * std::max(N, 0);
  }

 private:
  void begin() {
    const auto& u = *u_;
    width_ = padded_width(u.labels);
    chunk_ = chunk_of(u.frames, 4 * int64_t(width_));
    chunks_ = (u.frames + chunk_ - 1) / chunk_;
    Parts<float> floats;
    Parts<int32_t> ints;
    lay_out(floats, ints);
    floats = Parts<float>(floats_.reserve(floats.used()));
    ints = Parts<int32_t>(ints_.reserve(ints.used()));
    lay_out(floats, ints);
    rows_.clear_pads(0, 1);
    emissions_.begin(u, false, width_);
    shift_ = Shift();
  }

  void lay_out(Parts<float>& floats, Parts<int32_t>& ints) {
    rows_.lay_out(floats, ints, 2 + chunks_, width_);
    emissions_.lay_out(floats, ints, 1, width_);
    scratch_ = floats.take(std::max(u_->V, width_));
    back_ = ints.take(int64_t(chunk_) * width_);
  }

  // To the end; false if a frame is bad.
  bool walk() {
    const auto& u = *u_;
    rows_.start(now_);
    for (int frame = 0, i = 0; frame < u.frames; ++frame, ++i) {
      if (i == chunk_) i = 0;
      if (i == 0) rows_.copy(now_, 2 + frame / chunk_);
      float peak;
      const S* x = u.row(frame);
      if (!find_peak(x, u.V, &peak)) return false;
      const S* next = u.row(std::min(frame + 1, u.frames - 1));
      if (u.normalise) shift_.divide(exps(x, next, peak, scratch_, u.V));
      shift_.add(advance(frame, i), u.normalise ? peak : 0);
    }
    return true;
  }

  // Rows 0 and 1 take turns.
  float advance(int frame, int i) {
    const float best = emissions_.read(u_->row(frame), 0, width_);
    const Row from = rows_.at(now_), to = rows_.at(1 - now_);
    best_step(from.m, from.e, to.m, to.e, emissions_.m, emissions_.e, emissions_.skip,
              back_ + int64_t(i) * width_, u_->labels, width_);
    if (i % kRenormalise == kRenormalise - 1) {
      renormalise(to.m, to.e, zero_limit(u_->frames), width_);
    };
    now_ = 1 - now_;
    return best;
  }

  // log p of the path, which ends in blank[N] or, if that is better, in label[N-1].
  float value() {
    const int N = u_->labels;
    const Row end = rows_.at(now_);
    renormalise(end.m, end.e, zero_limit(u_->frames), width_);
    last_ = 2 * N;
    int at = N;
    if (N > 0) {
      const int label = label_at(width_) + N - 1;
      const bool is_better = end.e[label] > end.e[N] ||
                             (end.e[label] == end.e[N] && end.m[label] > end.m[N]);
      if (is_better) last_ = 2 * N - 1, at = label;
    }
    if (end.e[at] == kZero) return -kInf;
    const double value =
        std::log(double(end.m[at])) + end.e[at] * kLn2 + shift_.total();
    return value < kLogCutoff ? -kInf : value < 3e38 ? float(value) : kInf;
  }

  void follow(int32_t* states) {
    int state = last_;
    for (int frame = u_->frames - 1; frame >= 0; --frame) {
      const int i = frame % chunk_, chunk = frame / chunk_;
      if (i == chunk_ - 1 && chunk < chunks_ - 1) {
        rows_.copy(2 + chunk, now_);
        for (int k = 0; k < chunk_; ++k) advance(frame - i + k, k);
      }
      states[frame] = state;
      const int32_t back = back_[int64_t(i) * width_ + state / 2];
      state -= state % 2 ? back >> 2 : back & 3;
    }
  }

  const Utterance<S>* u_ = nullptr;
  int width_ = 0, chunk_ = 1, chunks_ = 0, last_ = 0, now_ = 0;
  Rows rows_;
  Emissions emissions_{};
  float* scratch_ = nullptr;
  int32_t* back_ = nullptr;
  Shift shift_;
  Buffer<float> floats_;
  Buffer<int32_t> ints_;
};

}  // namespace jax_ctc
