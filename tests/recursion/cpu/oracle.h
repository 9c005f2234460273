// The textbook recursion in log space and double, over the interleaved states
// blank, label, blank, ..., blank. It shares nothing with the kernel.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

namespace oracle {

constexpr double kNone = -std::numeric_limits<double>::infinity();

inline double add(double a, double b) {
  const double most = std::max(a, b);
  return most == kNone ? kNone
                       : most + std::log(std::exp(a - most) + std::exp(b - most));
}

struct Answer {
  double log_z = kNone;
  std::vector<double> gradient;  // [frames, V]
};

// scores [frames, V]; labels and the blank are valid classes.
inline Answer solve(const std::vector<double>& scores, int frames, int V,
                    const std::vector<int>& labels, const std::vector<bool>& can_skip,
                    int blank, bool normalise) {
  const int S = 2 * int(labels.size()) + 1;
  const auto id = [&](int s) { return s % 2 ? labels[s / 2] : blank; };
  std::vector<double> log_p = scores;
  Answer answer;
  answer.gradient.assign(size_t(frames) * V, 0);
  for (int t = 0; normalise && t < frames; ++t) {
    double* row = &log_p[size_t(t) * V];
    double total = kNone;
    for (int v = 0; v < V; ++v) total = add(total, row[v]);
    for (int v = 0; v < V; ++v) row[v] -= total;
  }
  // ways[s]: from s, s - 1 and, where it is allowed, s - 2.
  std::vector<std::vector<double>> alpha(frames + 1, std::vector<double>(S, kNone));
  auto beta = alpha;
  alpha[0][0] = 0;  // before the first frame, as if a blank had been
  const auto skips = [&](int s) { return s % 2 && s > 1 && can_skip[s / 2]; };
  for (int t = 0; t < frames; ++t) {
    for (int s = 0; s < S; ++s) {
      double sum = alpha[t][s];
      if (s > 0) sum = add(sum, alpha[t][s - 1]);
      if (skips(s)) sum = add(sum, alpha[t][s - 2]);
      alpha[t + 1][s] = sum + log_p[size_t(t) * V + id(s)];
    }
  }
  beta[frames][S - 1] = 0;
  if (S > 1) beta[frames][S - 2] = 0;
  for (int t = frames - 1; t >= 0; --t) {
    for (int s = 0; s < S; ++s) {
      const double here = beta[t + 1][s] + log_p[size_t(t) * V + id(s)];
      beta[t][s] = add(beta[t][s], here);
      if (s > 0) beta[t][s - 1] = add(beta[t][s - 1], here);
      if (skips(s)) beta[t][s - 2] = add(beta[t][s - 2], here);
    }
  }
  answer.log_z = add(alpha[frames][S - 1], S > 1 ? alpha[frames][S - 2] : kNone);
  if (answer.log_z == kNone) return answer;
  for (int t = 0; t < frames; ++t) {
    double* row = &answer.gradient[size_t(t) * V];
    for (int v = 0; normalise && v < V; ++v)
      row[v] = std::exp(log_p[size_t(t) * V + v]);
    for (int s = 0; s < S; ++s) {
      row[id(s)] -= std::exp(alpha[t + 1][s] + beta[t + 1][s] - answer.log_z);
    }
  }
  return answer;
}

// log p of the most probable path through the same lattice.
inline double best(const std::vector<double>& log_p, int frames, int V,
                   const std::vector<int>& labels, const std::vector<bool>& can_skip,
                   int blank) {
  const int S = 2 * int(labels.size()) + 1;
  std::vector<double> alpha(S, kNone);
  alpha[0] = 0;
  for (int t = 0; t < frames; ++t) {
    for (int s = S - 1; s >= 0; --s) {
      double most = alpha[s];
      if (s > 0) most = std::max(most, alpha[s - 1]);
      if (s % 2 && s > 1 && can_skip[s / 2]) most = std::max(most, alpha[s - 2]);
      alpha[s] = most + log_p[size_t(t) * V + (s % 2 ? labels[s / 2] : blank)];
    }
  }
  return std::max(alpha[S - 1], S > 1 ? alpha[S - 2] : kNone);
}

}  // namespace oracle
