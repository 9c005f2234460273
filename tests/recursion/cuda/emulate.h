// CUDA's words on a CPU, one block at a time.
//
// As it is, a thread of a block is a fiber of one CPU thread. At every shuffle and barrier
// it steps aside for the next, in an order drawn from `emulation_seed`, and so are blocks:
// a program without races gives the same bits in any order. A shuffle that not all lanes reach, and a
// barrier that not all threads reach, stop the program.
//
// With -DTHREADS a thread is a std::thread and a barrier a std::barrier, for
// ThreadSanitizer. In both, `emulation_without` names a barrier that is left out.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

using std::isnan;
using std::max;
using std::min;
#define __global__
#define __device__
#define __shared__ static
#define __restrict__
#define __forceinline__ inline

struct Index {
  int x;
};
inline unsigned emulation_seed = 0;
inline int emulation_without = -1;
constexpr int kMostWarps = 32, kMostCrews = 16;

inline float __int_as_float(int i) {
  float f;
  std::memcpy(&f, &i, 4);
  return f;
}
inline int __float_as_int(float f) {
  int i;
  std::memcpy(&i, &f, 4);
  return i;
}
inline float __saturatef(float x) { return x > 0.0f ? fminf(x, 1.0f) : 0.0f; }

// Of finite numbers; the halves that are no numbers do not come up in tests of these two.
inline float float_of_half(unsigned short h) {
  const int sign = h & 0x8000 ? -1 : 1, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024.0f + fraction, exponent - 25)
                          : std::ldexp((float)fraction, -24));
}
inline unsigned short half_of_float(float x) {
  const unsigned short sign = std::signbit(x) ? 0x8000 : 0;
  x = std::fabs(x);
  if (!(x < 65520.0f)) return sign | (isnan(x) ? 0x7e00 : 0x7c00);
  int exponent = x < 6.103515625e-5f ? -14 : std::ilogb(x);
  int digits = (int)std::nearbyint(std::ldexp(x, 10 - exponent));  // ties to even
  return sign | (unsigned short)(digits + ((exponent + 14) << 10));
}

#ifdef THREADS
#include <barrier>
#include <mutex>
#include <thread>

inline thread_local Index threadIdx, blockIdx, blockDim;
using Barrier = std::unique_ptr<std::barrier<>>;
inline Barrier of_block, of_warp[kMostWarps], of_crew[kMostCrews];
inline std::mutex crews_mutex;

inline void meet_warp() { of_warp[threadIdx.x / 32]->arrive_and_wait(); }
inline void meet_block(int number) {
  if (number != emulation_without) of_block->arrive_and_wait();
}
inline void meet_crew(int number, int crew, int threads) {
  if (number == emulation_without) return;
  {
    std::lock_guard<std::mutex> lock(crews_mutex);
    if (!of_crew[crew]) of_crew[crew] = std::make_unique<std::barrier<>>(threads);
  }
  of_crew[crew]->arrive_and_wait();
}
inline void launch(int grid, int block, const std::function<void()>& kernel) {
  for (int b = 0; b < grid; ++b) {
    of_block = std::make_unique<std::barrier<>>(block);
    for (int w = 0; w < block / 32; ++w) of_warp[w] = std::make_unique<std::barrier<>>(32);
    for (auto& crew : of_crew) crew.reset();
    std::vector<std::thread> threads;
    for (int i = 0; i < block; ++i)
      threads.emplace_back([=, &kernel] {
        threadIdx.x = i, blockIdx.x = b, blockDim.x = block;
        kernel();
      });
    for (auto& thread : threads) thread.join();
  }
}

#else
#include <setjmp.h>
#include <ucontext.h>

inline Index threadIdx, blockIdx, blockDim;
enum Wait { kRuns, kAtWarp, kAtBlock, kDone, kAtCrew };  // kAtCrew + crew
struct Fiber {
  ucontext_t start;
  jmp_buf place;
  std::vector<char> stack;
  bool begun;
  int wait;
};
inline std::vector<std::unique_ptr<Fiber>> fibers;
inline jmp_buf scheduler;
inline const std::function<void()>* body;
inline int crew_threads[kMostCrews];

inline void step_aside(int why) {
  Fiber& fiber = *fibers[threadIdx.x];
  fiber.wait = why;
  if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}
inline void meet_warp() { step_aside(kAtWarp); }
inline void meet_block(int number) {
  if (number != emulation_without) step_aside(kAtBlock);
}
inline void meet_crew(int number, int crew, int threads) {
  crew_threads[crew] = threads;
  if (number != emulation_without) step_aside(kAtCrew + crew);
}
inline void enter() {
  (*body)();
  step_aside(kDone);
}
inline void resume(int i) {
  Fiber& fiber = *fibers[i];
  threadIdx.x = i;
  if (_setjmp(scheduler)) return;
  if (fiber.begun) _longjmp(fiber.place, 1);
  fiber.begun = true;
  setcontext(&fiber.start);
}
[[noreturn]] inline void stop(const char* why) {
  std::fprintf(stderr, "emulate.h: %s\n", why);
  std::abort();
}

// Run a warp until all of it waits for others; tell if anything moved.
inline bool run_warp(int warp, const std::vector<int>& lanes) {
  for (bool moved = false;; moved = true) {
    int ran = 0, at_warp = 0, done = 0;
    for (int lane : lanes)
      if (fibers[warp * 32 + lane]->wait == kRuns) resume(warp * 32 + lane), ++ran;
    for (int lane : lanes) {
      at_warp += fibers[warp * 32 + lane]->wait == kAtWarp;
      done += fibers[warp * 32 + lane]->wait == kDone;
    }
    if (!at_warp) return moved || ran;
    if (at_warp + done < 32) stop("some lanes shuffle, others wait at a barrier");
    for (int lane : lanes)
      if (fibers[warp * 32 + lane]->wait == kAtWarp) fibers[warp * 32 + lane]->wait = kRuns;
  }
}
// Open each barrier that all its threads have come to; tell if one was.
inline bool open_barriers(int block) {
  bool opened = false;
  for (int kind = kAtBlock; kind < kAtCrew + kMostCrews; ++kind) {
    if (kind == kDone) continue;
    const int needed = kind == kAtBlock ? block : crew_threads[kind - kAtCrew];
    int here = 0;
    for (auto& fiber : fibers) here += fiber->wait == kind;
    if (!here || here != needed) continue;
    for (auto& fiber : fibers)
      if (fiber->wait == kind) fiber->wait = kRuns;
    opened = true;
  }
  return opened;
}
inline void launch(int grid, int block, const std::function<void()>& kernel) {
  std::mt19937 random(emulation_seed);
  body = &kernel;
  blockDim.x = block;
  fibers.resize(block);
  std::vector<int> warps(block / 32), lanes(32);
  for (size_t i = 0; i < warps.size(); ++i) warps[i] = (int)i;
  for (int i = 0; i < 32; ++i) lanes[i] = i;
  std::vector<int> blocks(grid);
  for (int b = 0; b < grid; ++b) blocks[b] = b;
  if (emulation_seed) std::shuffle(blocks.begin(), blocks.end(), random);
  for (int b : blocks) {
    blockIdx.x = b;
    for (auto& fiber : fibers) {
      if (!fiber) fiber = std::make_unique<Fiber>(), fiber->stack.resize(64 << 10);
      getcontext(&fiber->start);
      fiber->start.uc_stack.ss_sp = fiber->stack.data();
      fiber->start.uc_stack.ss_size = fiber->stack.size();
      fiber->start.uc_link = nullptr;
      makecontext(&fiber->start, enter, 0);
      fiber->begun = false;
      fiber->wait = kRuns;
    }
    for (bool over = false; !over;) {
      if (emulation_seed) {
        std::shuffle(warps.begin(), warps.end(), random);
        std::shuffle(lanes.begin(), lanes.end(), random);
      }
      bool moved = false;
      for (int warp : warps) moved |= run_warp(warp, lanes);
      moved |= open_barriers(block);
      over = std::all_of(fibers.begin(), fibers.end(),
                         [](auto& fiber) { return fiber->wait == kDone; });
      if (!over && !moved) stop("threads wait at a barrier that others never reach");
    }
  }
}
#endif

inline uint64_t warp_slots[kMostWarps][32];
template <class T>
T exchange(T x, int from) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  T y;
  std::memcpy(&warp_slots[warp][lane], &x, sizeof(T));
  meet_warp();
  std::memcpy(&y, &warp_slots[warp][from & 31], sizeof(T));
  meet_warp();
  return y;
}
template <class T>
T __shfl_sync(unsigned, T x, int lane) {
  return exchange(x, lane);
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int k) {
  return exchange(x, (threadIdx.x % 32) ^ k);
}
template <class T>
T __shfl_up_sync(unsigned, T x, int k) {
  const int lane = threadIdx.x % 32;
  return exchange(x, lane >= k ? lane - k : lane);
}
inline bool __any_sync(unsigned, int x) {
  for (int k = 16; k; k >>= 1) x |= __shfl_xor_sync(0, x, k);
  return x != 0;
}
