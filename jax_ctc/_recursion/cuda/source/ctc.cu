// CTC, value and gradient, on a GPU. Three launches, whatever the number of frames:
//
//   ctc_rows    normalisers of all frames, and the softmax where a gradient is wanted
//   ctc_there   both halves of each utterance, from its ends to the middle
//   ctc_back    each walk goes on through the other's half; the gradient   (or ctc_meet)
//
// No atomics, and no bit depends on timing, nor on other utterances. The same source runs
// on a CPU (tests/recursion/cuda/emulate.h), where a thread of a block is a thread.
#include "back.h"
#include "rows.h"

using namespace ctc;

#ifdef __CUDACC__
#define BOUNDS(...) __launch_bounds__((__VA_ARGS__), 1)
#else
#define BOUNDS(...)
#endif

#define ROWS(NAME, KIND)                                                              \
  extern "C" __global__ void BOUNDS(32 * kRowWarps) ctc_rows_##NAME(                  \
      const void* __restrict__ scores, const int* __restrict__ lengths,               \
      const int* __restrict__ dims, float* __restrict__ peaks,                        \
      float* __restrict__ rests) {                                                    \
    rows<KIND>(scores, lengths, dims, peaks, rests, nullptr);                         \
  }                                                                                   \
  extern "C" __global__ void BOUNDS(32 * kRowWarps) ctc_softmax_##NAME(               \
      const void* __restrict__ scores, const int* __restrict__ lengths,               \
      const int* __restrict__ dims, float* __restrict__ peaks,                        \
      float* __restrict__ rests, void* __restrict__ softmax) {                        \
    rows<KIND>(scores, lengths, dims, peaks, rests, softmax);                         \
  }
ROWS(float32, kFloat32)
ROWS(bfloat16, kBFloat16)
ROWS(float16, kFloat16)

// So many warps walk, and so many threads there are, at most.
template <int R>
using There = Layout<R, R == 1 || R >= 8 ? 8 : 10, Sum>;
template <int R>
using Back = Layout<R, R < 8 ? 5 : 8, Num>;
template <class L>
constexpr int kThere = 32 * (L::kApart ? L::kWarps + kReaders + 1 : L::kWarps);
template <class L>
constexpr int kBack = 32 * (L::kApart ? 2 * (L::kWarps + kReaders) + kWriters : L::kWarps);

#define THERE(R)                                                                      \
  extern "C" __global__ void BOUNDS(kThere<There<R>>) ctc_there_##R(                  \
      const void* __restrict__ scores, const float* __restrict__ peaks,               \
      const float* __restrict__ rests, const int* __restrict__ ids,                   \
      const unsigned char* __restrict__ skips, const int* __restrict__ lengths,       \
      const int* __restrict__ counts, const int* __restrict__ dims,                   \
      double* __restrict__ shifts, Pair* __restrict__ kept) {                         \
    there<There<R>>(scores, peaks, rests, ids, skips, lengths, counts, dims, shifts,  \
                    kept);                                                            \
  }
#define BACK(R)                                                                       \
  extern "C" __global__ void BOUNDS(kBack<Back<R>>) ctc_back_##R(                     \
      const void* __restrict__ scores, const float* __restrict__ peaks,               \
      const float* __restrict__ rests, const int* __restrict__ ids,                   \
      const unsigned char* __restrict__ skips, const int* __restrict__ lengths,       \
      const int* __restrict__ counts, const int* __restrict__ dims,                   \
      const double* __restrict__ shifts, const Pair* __restrict__ kept, const void*,  \
      float* __restrict__ log_z, void* gradient, Pair* rows, Occupancy* occupied,     \
      Pair* parked, int* scratch) {                                                   \
    back<Back<R>>(scores, peaks, rests, ids, skips, lengths, counts, dims, shifts,    \
                  kept, log_z, gradient, rows, occupied, parked, scratch);            \
  }
THERE(1)
THERE(2)
THERE(4)
THERE(8)
THERE(16)
BACK(1)
BACK(2)
BACK(4)
BACK(8)
BACK(16)

extern "C" __global__ void BOUNDS(32) ctc_meet(const unsigned char* __restrict__ skips,
                                               const int* __restrict__ counts,
                                               const int* __restrict__ dims,
                                               const double* __restrict__ shifts,
                                               const Pair* __restrict__ kept,
                                               float* __restrict__ log_z) {
  only_meet(skips, counts, dims, shifts, kept, log_z);
}
