// The kernel without XLA: random batches against float64, on threads of its own.
//
//   kernel_test BATCHES SEED
//
// Prints what failed, and exits with 1 if anything did. Under a sanitizer a read past
// an array ends it: every array has exactly the size that the kernel is told.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "batch.h"
#include "oracle.h"

using namespace jax_ctc;

namespace {

int failures = 0;

void fail(const std::string& what, double found, double expected) {
  if (++failures <= 20) {
    std::printf("%s: found %.9g, expected %.9g\n", what.c_str(), found, expected);
  }
}

void expect(bool is_so, const std::string& what) {
  if (!is_so && ++failures <= 20) std::printf("%s\n", what.c_str());
}

// As XLA's: a fixed number of threads, and a queue.
class Pool {
 public:
  explicit Pool(int size) {
    for (int i = 0; i < size; ++i) threads_.emplace_back([this] { run(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      is_done_ = true;
    }
    some_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  int64_t num_threads() const { return int64_t(threads_.size()); }
  template <typename F>
  void Schedule(F work) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.emplace_back(work);
    }
    some_.notify_one();
  }

 private:
  void run() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      some_.wait(lock, [this] { return is_done_ || !queue_.empty(); });
      if (queue_.empty()) return;
      auto work = queue_.front();
      queue_.pop_front();
      lock.unlock();
      work();
    }
  }
  std::mutex mutex_;
  std::condition_variable some_;
  std::deque<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
  bool is_done_ = false;
};

struct Case {
  int B, T, V, U, blank;
  bool normalise;
  // Of two scores some 100 apart the difference is a float32: off by up to 4e-6.
  double atol;
  std::vector<double> scores;
  std::vector<int32_t> ids, num_labels, lengths;
  std::vector<uint8_t> can_skip;
};

struct Result {
  std::vector<float> log_z, gradient, value_alone;
};

// A score as the kernel reads it; its own `store` is for finite numbers.
template <typename S>
S narrow(double x) {
  S s{};
  if constexpr (sizeof(S) == 4) {
    s = float(x);
  } else if (std::isinf(x)) {
    s.bits = std::is_same_v<S, BFloat16> ? 0xff80 : 0xfc00;
  } else {
    store(&s, float(x));
  }
  return s;
}

// All batches here are small, and are to be shared out nevertheless.
template <typename S>
Result run(Pool& pool, const Case& c, double alone = 0) {
  std::vector<S> scores(c.scores.size()), gradient(c.scores.size());
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = narrow<S>(c.scores[i]);
  // Whatever is there before must not show.
  if (!gradient.empty()) std::memset(&gradient[0], 0x7f, gradient.size() * sizeof(S));
  Result r;
  r.log_z.assign(c.B, 7);
  r.value_alone.assign(c.B, 7);
  Batch<S> batch{c.B,
                 c.T,
                 c.V,
                 c.U,
                 c.normalise,
                 scores.data(),
                 c.ids.data(),
                 c.can_skip.data(),
                 c.num_labels.data(),
                 c.lengths.data(),
                 r.value_alone.data(),
                 nullptr};
  expect(score(pool, batch, alone), "out of memory");
  batch.log_z = r.log_z.data();
  batch.gradient = gradient.data();
  expect(score(pool, batch, alone), "out of memory");
  for (S g : gradient) r.gradient.push_back(load(g));
  return r;
}

using Random = std::mt19937;
int within(Random& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

Case draw(Random& random, int frames = 0) {
  Case c;
  const auto one_of = [&](std::initializer_list<int> of) {
    return of.begin()[within(random, 0, int(of.size()) - 1)];
  };
  c.B = within(random, 1, 6);
  c.T = frames ? frames : one_of({1, 2, 3, 5, 17, 33, 60});
  c.V = one_of({1, 2, 3, 5, 9, 31, 40});
  c.U = c.V == 1 ? 0 : one_of({0, 1, 2, 5, 15, 16, 20});
  c.blank = within(random, 0, c.V - 1);
  c.normalise = within(random, 0, 3) > 0;
  const double scale = one_of({0, 1, 1, 3, 30}), offset = one_of({0, 0, 0, 1000});
  c.atol = scale > 3 ? 2e-5 : 2e-6;
  std::normal_distribution<float> normal;
  for (int i = 0; i < c.B * c.T * c.V; ++i) {
    double x = float(scale * normal(random) + offset);
    c.scores.push_back(within(random, 0, 60) ? x : -INFINITY);
  }
  const bool is_feasible = within(random, 0, 3) > 0;
  for (int b = 0; b < c.B; ++b) {
    c.lengths.push_back(within(random, 0, 3) ? c.T : within(random, 0, c.T));
    const int most = is_feasible ? std::min(c.U, c.lengths[b] / 2) : c.U;
    c.num_labels.push_back(within(random, 0, 9) ? within(random, 0, most) : -1);
    int before = -1;
    for (int n = 0; n < c.U; ++n) {
      int label = within(random, 0, c.V - 2);
      label += label >= c.blank;
      if (before >= 0 && !within(random, 0, 3)) label = before;
      c.ids.push_back(label);
      c.can_skip.push_back(n > 0 && label != before);
      before = label;
    }
    c.ids.push_back(c.blank);
  }
  return c;
}

template <typename S>
void check(const Case& c, const Result& r, const std::string& name) {
  const size_t size = size_t(c.T) * c.V;
  for (int b = 0; b < c.B; ++b) {
    const std::string where = name + " utterance " + std::to_string(b);
    if (std::memcmp(&r.log_z[b], &r.value_alone[b], sizeof(float))) {
      fail(where + " value alone", r.value_alone[b], r.log_z[b]);
    }
    const int frames = c.lengths[b], labels = c.num_labels[b];
    std::vector<double> scores;
    bool is_bad = false;
    for (int t = 0; t < frames; ++t) {
      double peak = -INFINITY;
      for (int v = 0; v < c.V; ++v) {
        scores.push_back(load(narrow<S>(c.scores[b * size + size_t(t) * c.V + v])));
        peak = std::max(peak, scores.back());
      }
      is_bad |= !std::isfinite(peak);
    }
    const int* ids = &c.ids[size_t(b) * (c.U + 1)];
    oracle::Answer exact;
    if (labels >= 0 && !is_bad) {
      std::vector<bool> can_skip;
      for (int n = 0; n < labels; ++n) can_skip.push_back(c.can_skip[b * c.U + n]);
      exact = oracle::solve(scores, frames, c.V, {ids, ids + labels}, can_skip,
                            ids[c.U], c.normalise);
    }
    if (is_bad) {
      expect(std::isnan(r.log_z[b]), where + ": a bad frame is not NaN");
    } else if (exact.log_z == oracle::kNone) {
      expect(r.log_z[b] == -kInf, where + ": impossible, but has a value");
    } else {
      const float at = std::abs(float(exact.log_z));
      const double ulp = double(std::nextafter(at, kInf)) - at;
      if (!(std::abs(r.log_z[b] - exact.log_z) <= 2 * ulp + c.atol)) {
        fail(where + " log_z", r.log_z[b], exact.log_z);
      }
    }
    const bool is_alive = exact.log_z > oracle::kNone;
    for (size_t i = 0; i < size; ++i) {
      const bool is_live = is_alive && i < size_t(frames) * c.V;
      const double expected = is_live ? exact.gradient[i] : 0,
                   found = r.gradient[b * size + i];
      const double most =
          is_live ? c.atol + (sizeof(S) == 2 ? std::abs(expected) / 200 : 0) : 0;
      if (!(std::abs(found - expected) <= most)) {
        fail(where + " gradient " + std::to_string(i), found, expected);
      }
    }
  }
}

// The path says the labels, is as probable as it says, and none is more so.
void check_paths(Pool& pool, const Case& c, const std::string& name) {
  const std::vector<float> scores(c.scores.begin(), c.scores.end());
  std::vector<float> log_p(c.B);
  std::vector<int32_t> states(size_t(c.T) * c.B, -1);
  const Batch<float> batch{c.B,
                           c.T,
                           c.V,
                           c.U,
                           false,
                           scores.data(),
                           c.ids.data(),
                           c.can_skip.data(),
                           c.num_labels.data(),
                           c.lengths.data(),
                           log_p.data(),
                           nullptr};
  expect(find_paths(pool, batch, states.data()), "out of memory");
  for (int b = 0; b < c.B; ++b) {
    const std::string where = name + " path " + std::to_string(b);
    const int frames = c.lengths[b], N = c.num_labels[b];
    const int* ids = &c.ids[size_t(b) * (c.U + 1)];
    const double* row = c.scores.data() + size_t(b) * c.T * c.V;
    if (N < 0 || std::isnan(log_p[b])) continue;
    std::vector<bool> can_skip;
    for (int n = 0; n < N; ++n) can_skip.push_back(c.can_skip[b * c.U + n]);
    const double best = oracle::best({row, row + size_t(frames) * c.V}, frames, c.V,
                                     {ids, ids + N}, can_skip, ids[c.U]);
    if (best == oracle::kNone) {
      expect(log_p[b] == -kInf, where + ": impossible, but has a value");
      continue;
    }
    double sum = 0;
    int before = 0;
    for (int t = 0; t < frames; ++t) {
      const int s = states[size_t(b) * c.T + t], step = s - before;
      const bool may_skip = step == 2 && s % 2 && s > 1 && can_skip[s / 2];
      expect(step == 0 || step == 1 || may_skip, where + ": a step that is none");
      sum += row[size_t(t) * c.V + (s % 2 ? ids[s / 2] : ids[c.U])];
      before = s;
    }
    expect(before == 2 * N || before == 2 * N - 1, where + ": does not reach the end");
    const double atol = c.atol + 1e-6 * std::abs(best);
    if (!(std::abs(sum - best) <= atol)) fail(where + " of its states", sum, best);
    if (!(std::abs(log_p[b] - best) <= atol)) fail(where, log_p[b], best);
  }
}

void expect_same(const Result& a, const Result& b, const std::string& what) {
  const auto bits = [](const std::vector<float>& x) {
    return std::string(reinterpret_cast<const char*>(x.data()),
                       x.size() * sizeof(float));
  };
  expect(bits(a.log_z) == bits(b.log_z) && bits(a.gradient) == bits(b.gradient), what);
}

void random_batches(int count, int seed) {
  Pool one(1), two(2), many(5);
  Random random(seed);
  for (int i = 0; i < count; ++i) {
    const Case c = draw(random);
    const std::string name = "batch " + std::to_string(i);
    const Result r = run<float>(two, c);
    check<float>(c, r, name);
    expect_same(r, run<float>(one, c),
                name + ": another number of threads, other bits");
    expect_same(r, run<float>(many, c),
                name + ": another number of threads, other bits");
    expect_same(r, run<float>(two, c, kSoonDone), name + ": alone, other bits");
    check_paths(two, c, name);
    if (i % 4 == 0) check<BFloat16>(c, run<BFloat16>(two, c), name + " bfloat16");
    if (i % 4 == 1) check<Float16>(c, run<Float16>(two, c), name + " float16");
  }
}

// Of so many frames alpha is not kept, but walked anew a chunk at a time.
void long_batches(int count, int seed) {
  Pool two(2), many(5);
  Random random(seed);
  for (int i = 0; i < count; ++i) {
    const Case c = draw(random, 3001);
    const std::string name = "long batch " + std::to_string(i);
    const Result r = run<float>(two, c);
    check<float>(c, r, name);
    expect_same(r, run<float>(many, c), name + ": other bits");
  }
}

// Whatever the integers are, nothing is read or written elsewhere, and neighbours keep
// every bit of theirs.
void bad_integers(int count, int seed) {
  Pool pool(2);
  Random random(seed);
  const int32_t least = std::numeric_limits<int32_t>::min();
  for (int i = 0; i < count; ++i) {
    Case c = draw(random);
    const Result before = run<float>(pool, c);
    const int b = within(random, 0, c.B - 1);
    const int32_t bad[] = {least, -2, c.V, c.T + 1, c.U + 1, 1 << 30, -(least + 1)};
    const int32_t value = bad[within(random, 0, 6)];
    const int kind = within(random, 0, 2);
    bool is_bad = true;
    if (kind == 0) {
      c.lengths[b] = value;
      is_bad = value < 0 || value > c.T;
    } else if (kind == 1) {
      c.num_labels[b] = value;
      is_bad = value < 0 || value > c.U;
    } else {
      const int n = within(random, 0, c.U);
      c.ids[size_t(b) * (c.U + 1) + n] = value;
      is_bad = (value < 0 || value >= c.V) && (n == c.U || n < c.num_labels[b]);
    }
    const Result after = run<float>(pool, c);
    if (is_bad) {
      expect(!(after.log_z[b] > -kInf), "a bad integer has a value");
      const size_t size = size_t(c.T) * c.V;
      for (size_t k = 0; k < size; ++k) {
        expect(after.gradient[b * size + k] == 0, "a bad integer has a gradient");
      }
    }
    Result same = after;
    const size_t size = size_t(c.T) * c.V;
    same.log_z[b] = before.log_z[b];
    std::copy_n(before.gradient.begin() + b * size, size,
                same.gradient.begin() + b * size);
    expect_same(same, before, "a bad integer shows in its neighbours");
  }
}

// Eight callers at a time, of a pool whose every thread may be waiting for another.
void callers() {
  for (int threads : {1, 3}) {
    Pool pool(threads);
    std::vector<std::thread> all;
    for (int k = 0; k < 8; ++k) {
      all.emplace_back([&pool, k] {
        Random random(k);
        for (int i = 0; i < 20; ++i) {
          const Case c = draw(random);
          const Result r = run<float>(pool, c);
          check<float>(c, r, "caller " + std::to_string(k));
        }
      });
    }
    for (auto& thread : all) thread.join();
  }
  // And from inside of the pool itself.
  Pool pool(2);
  std::atomic<int> done{0};
  for (int k = 0; k < 4; ++k) {
    pool.Schedule([&pool, &done, k] {
      Random random(k);
      run<float>(pool, draw(random));
      ++done;
    });
  }
  while (done < 4) std::this_thread::yield();
}

// The number nearest to x, of all 65,536, ties to the one whose last bit is 0.
template <typename S>
void narrow_floats(double largest) {
  std::map<double, int> all;
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const S s{uint16_t(bits)};
    const double x = load(s);
    if (!std::isfinite(x)) continue;
    S back;
    store(&back, float(x));
    expect(std::abs(x) > largest || back.bits == bits, "a narrow float is changed");
    all[x] = bits;
  }
  Random random(3);
  for (int i = 0; i < 200000; ++i) {
    const double exponent = std::uniform_real_distribution<double>(-28, 0)(random);
    const float x = float(std::exp2(exponent) * (within(random, 0, 1) ? 1 : -1));
    auto above = all.lower_bound(x);
    auto below = above;
    if (above->first != x) --below;
    S found;
    store(&found, x);
    const double up = above->first - x, down = x - below->first;
    int expected = up < down ? above->second : below->second;
    if (up == down && above->second % 2 == 0) expected = above->second;
    expect(load(found) == load(S{uint16_t(expected)}), "a float is rounded wrongly");
  }
}

// More elements than int32 counts, in pages that all lie in the same memory.
void many_elements() {
// ThreadSanitizer keeps four bytes of its own for each.
#if defined(__linux__) && !defined(__SANITIZE_THREAD__)
  const int64_t B = 3, T = 1 << 20, V = 1024, U = 1, size = B * T * V * 2;
  const int64_t period = int64_t(64) << 20;
  const int file = memfd_create("gradient", 0);
  expect(file >= 0 && ftruncate(file, period) == 0, "no memory file");
  void* at = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
  for (int64_t start = 0; start < size; start += period) {
    mmap(static_cast<char*>(at) + start, period, PROT_READ | PROT_WRITE,
         MAP_SHARED | MAP_FIXED, file, 0);
  }
  const void* zeros = mmap(nullptr, size, PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  expect(at != MAP_FAILED && zeros != MAP_FAILED, "no address space");
  const std::vector<int32_t> ids{1, 0, 1, 0, 1, 0}, labels{1, 1, 1}, lengths{7, 6, 3};
  const std::vector<uint8_t> can_skip(3);
  std::vector<float> log_z(3);
  Pool pool(1);
  auto* gradient = static_cast<BFloat16*>(at);
  const Batch<BFloat16> batch{B,
                              T,
                              V,
                              U,
                              true,
                              static_cast<const BFloat16*>(zeros),
                              ids.data(),
                              can_skip.data(),
                              labels.data(),
                              lengths.data(),
                              log_z.data(),
                              gradient};
  expect(score(pool, batch), "out of memory");
  // "a" in 3 frames, between blanks: a run of 1, 2 or 3 frames, 6 ways.
  const double expected = std::log(6.0) - 3 * std::log(double(V));
  if (!(std::abs(log_z[2] - expected) < 1e-5)) fail("far away", log_z[2], expected);
  // Walked last, by one thread, so that nothing was written over it.
  const BFloat16* row = gradient + 2 * T * V;
  const double first = load(row[1]);
  if (!(std::abs(first - (1.0 / V - 0.5)) < 2e-3))
    fail("far away", first, 1.0 / V - 0.5);
  munmap(at, size);
  munmap(const_cast<void*>(zeros), size);
  close(file);
#endif
}

}  // namespace

int main(int count, char** words) {
  const int batches = count > 1 ? std::atoi(words[1]) : 1000;
  const int seed = count > 2 ? std::atoi(words[2]) : 0;
  random_batches(batches, seed);
  long_batches(4, seed + 2);
  bad_integers(batches / 4, seed + 1);
  callers();
  narrow_floats<BFloat16>(1e38);
  narrow_floats<Float16>(65504);
  many_elements();
  std::printf("%d batches, %d failures\n", batches, failures);
  return failures > 0;
}
