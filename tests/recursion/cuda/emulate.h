// CUDA's words on a CPU, one block at a time.
//
// A thread of a block is a fiber of one CPU thread. At every shuffle and barrier it steps
// aside for the next, in an order drawn from `emulation_seed`, and so are blocks: a program
// without races gives the same bits in any order. A shuffle that not all lanes reach, and a
// barrier that not all threads reach, stop the program.
//
// Under ThreadSanitizer each fiber is a thread to it, and barriers are all that orders
// them: shuffles do not. `emulation_without` names a barrier that orders nothing.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

using std::isnan;
using std::max;
using std::min;
#define __global__
#define __device__
#define __shared__ static
#define __restrict__
#define __forceinline__ inline

struct alignas(8) float2 {
  float x, y;
};
struct Index {
  int x;
};
inline unsigned emulation_seed = 0;
inline int emulation_without = -1;
constexpr int kMostWarps = 32, kMostCrews = 8, kStack = 64 << 10;

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

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#else
inline void* __tsan_create_fiber(unsigned) { return nullptr; }
inline void* __tsan_get_current_fiber() { return nullptr; }
inline void __tsan_destroy_fiber(void*) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
#endif

inline Index threadIdx, blockIdx, blockDim;
enum Wait { kNew, kRuns, kAtWarp, kDone, kAtBlock, kAtCrew };  // kAtCrew + crew
struct Fiber {
  ucontext_t place;
  jmp_buf jump;
  char* stack;
  void* tsan;
  int wait;
};
inline Fiber fibers[1024];
inline Fiber scheduler;
inline const std::function<void()>* body;
inline int crew_threads[kMostCrews];
inline char start, end, order[kMostCrews + 1];  // what ThreadSanitizer knows barriers by

// ThreadSanitizer is not to see what the emulator itself does out of any order.
#define UNSEEN __attribute__((no_sanitize("thread"), noinline))

// A jump takes no system call, as `swapcontext` does; but ThreadSanitizer cannot follow it.
UNSEEN inline void go(Fiber& from, Fiber& to, bool is_new) {
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
  swapcontext(&from.place, &to.place);
#else
  if (_setjmp(from.jump)) return;
  if (is_new) setcontext(&to.place);
  _longjmp(to.jump, 1);
#endif
}
UNSEEN inline void step_aside(int why) {
  Fiber& fiber = fibers[threadIdx.x];
  fiber.wait = why;
  go(fiber, scheduler, false);
}
UNSEEN inline void meet(int number, int barrier, int why) {
  const bool orders = number != emulation_without;
  if (orders) __tsan_release(&order[barrier]);
  step_aside(why);
  if (orders) __tsan_acquire(&order[barrier]);
}
inline void meet_block(int number) { meet(number, kMostCrews, kAtBlock); }
UNSEEN inline void meet_crew(int number, int crew, int threads) {
  crew_threads[crew] = threads;
  meet(number, crew, kAtCrew + crew);
}
inline void enter() {
  __tsan_acquire(&start);
  (*body)();
  __tsan_release(&end);
  step_aside(kDone);
}
UNSEEN inline void resume(int i) {
  threadIdx.x = i;
  const bool is_new = fibers[i].wait == kNew;
  fibers[i].wait = kRuns;
  go(scheduler, fibers[i], is_new);
}
[[noreturn]] inline void stop(const char* why) {
  std::fprintf(stderr, "emulate.h: %s\n", why);
  std::abort();
}

// Run a warp until all of it waits for others; tell if anything moved.
UNSEEN inline bool run_warp(int warp, const std::vector<int>& lanes) {
  for (bool moved = false;; moved = true) {
    int ran = 0, at_warp = 0, done = 0;
    for (int lane : lanes)
      if (fibers[warp * 32 + lane].wait <= kRuns) resume(warp * 32 + lane), ++ran;
    for (int lane : lanes) {
      at_warp += fibers[warp * 32 + lane].wait == kAtWarp;
      done += fibers[warp * 32 + lane].wait == kDone;
    }
    if (!at_warp) return moved || ran;
    if (at_warp + done < 32) stop("some lanes shuffle, others wait at a barrier");
    for (int lane : lanes)
      if (fibers[warp * 32 + lane].wait == kAtWarp) fibers[warp * 32 + lane].wait = kRuns;
  }
}
// Open each barrier that all its threads have come to; tell if one was.
UNSEEN inline bool open_barriers(int block) {
  bool opened = false;
  for (int kind = kAtBlock; kind < kAtCrew + kMostCrews; ++kind) {
    const int needed = kind == kAtBlock ? block : crew_threads[kind - kAtCrew];
    int here = 0;
    for (int i = 0; i < block; ++i) here += fibers[i].wait == kind;
    if (!here || here != needed) continue;
    for (int i = 0; i < block; ++i)
      if (fibers[i].wait == kind) fibers[i].wait = kRuns;
    opened = true;
  }
  return opened;
}
UNSEEN inline void run_block(int block, std::mt19937& random) {
  std::vector<int> warps(block / 32), lanes(32);
  for (size_t i = 0; i < warps.size(); ++i) warps[i] = (int)i;
  for (int i = 0; i < 32; ++i) lanes[i] = i;
  for (int i = 0; i < block; ++i) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack = (char*)std::malloc(kStack);
    getcontext(&fiber.place);
    fiber.place.uc_stack.ss_sp = fiber.stack;
    fiber.place.uc_stack.ss_size = kStack;
    fiber.place.uc_link = nullptr;
    makecontext(&fiber.place, enter, 0);
    fiber.tsan = __tsan_create_fiber(0);
    fiber.wait = kNew;
  }
  __tsan_release(&start);
  for (bool over = false; !over;) {
    if (emulation_seed) {
      std::shuffle(warps.begin(), warps.end(), random);
      std::shuffle(lanes.begin(), lanes.end(), random);
    }
    bool moved = false;
    for (int warp : warps) moved |= run_warp(warp, lanes);
    moved |= open_barriers(block);
    over = std::all_of(fibers, fibers + block,
                       [](const Fiber& fiber) { return fiber.wait == kDone; });
    if (!over && !moved) stop("threads wait at a barrier that others never reach");
  }
  __tsan_acquire(&end);
  for (int i = 0; i < block; ++i) __tsan_destroy_fiber(fibers[i].tsan);
}
inline void launch(int grid, int block, const std::function<void()>& kernel) {
  std::mt19937 random(emulation_seed);
  scheduler.tsan = __tsan_get_current_fiber();
  body = &kernel;
  blockDim.x = block;
  std::vector<int> blocks(grid);
  for (int b = 0; b < grid; ++b) blocks[b] = b;
  if (emulation_seed) std::shuffle(blocks.begin(), blocks.end(), random);
  for (int b : blocks) {
    blockIdx.x = b;
    run_block(block, random);
  }
}

union Word {
  int i;
  float f;
  double d;
};
inline Word word(int x) { return {.i = x}; }
inline Word word(float x) { return {.f = x}; }
inline Word word(double x) { return {.d = x}; }
inline void unpack(Word w, int& x) { x = w.i; }
inline void unpack(Word w, float& x) { x = w.f; }
inline void unpack(Word w, double& x) { x = w.d; }

inline Word warp_slots[kMostWarps][32];
UNSEEN inline Word exchange(Word mine, int from) {
  Word* slots = warp_slots[threadIdx.x / 32];
  slots[threadIdx.x % 32] = mine;
  step_aside(kAtWarp);
  const Word theirs = slots[from & 31];
  step_aside(kAtWarp);
  return theirs;
}
template <class T>
T exchange(T x, int from) {
  unpack(exchange(word(x), from), x);
  return x;
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
inline unsigned __ballot_sync(unsigned, int x) {
  int bits = (x != 0) << (threadIdx.x % 32);
  for (int k = 16; k; k >>= 1) bits |= __shfl_xor_sync(0, bits, k);
  return bits;
}
inline bool __any_sync(unsigned, int x) { return __ballot_sync(0, x) != 0; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
