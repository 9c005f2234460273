// Work shared between the threads of a pool and the one that called.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

namespace jax_ctc {

// So long a caller looks whether the others are done before it sleeps.
constexpr std::chrono::microseconds kPatience(50);

// Runs work(0), ..., work(n - 1), each with a Local of the thread that runs it; false
// if memory ran out.
//
// The caller takes its share, and waits only for what another thread has begun, which
// waits for nothing: so a pool whose threads are all busy, or wait here themselves, is
// no deadlock. A thread that comes late finds nothing left, and touches nothing of the
// caller's. Who does what changes no result: all write to places of their own.
template <typename Local, typename Pool, typename Work>
bool share(Pool& pool, int64_t n, Work work) {
  struct State {
    explicit State(Work w) : work(w) {}
    Work work;
    std::atomic<int64_t> next{0};
    std::atomic<bool> is_short_of_memory{false};
    std::atomic<int64_t> done{0};
    std::mutex mutex;
    std::condition_variable all;
  };
  auto state = std::make_shared<State>(work);
  auto run = [state, n] {
    Local local;
    int64_t count = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < n; ++count) {
      try {
        if (!state->is_short_of_memory) state->work(i, local);
      } catch (const std::bad_alloc&) {
        state->is_short_of_memory =
            true;  // out of a pool's thread nothing may be thrown
      }
    }
    if (!count || state->done.fetch_add(count) + count < n) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    state->all.notify_all();
  };
  const int64_t helpers = std::min<int64_t>(n, pool.num_threads()) - 1;
  try {
    for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(run)(run));
  } catch (const std::bad_alloc&) {  // then fewer help
  }
  run();
  // Mostly they are about to be, and to be woken takes longer.
  const auto start = std::chrono::steady_clock::now();
  while (state->done < n && std::chrono::steady_clock::now() - start < kPatience) {
    std::this_thread::yield();
  }
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all.wait(lock, [&] { return state->done == n; });
  return !state->is_short_of_memory;
}

}  // namespace jax_ctc
