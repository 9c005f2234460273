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
#define BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#else
#define BOUNDS(threads, blocks)
#endif

#define ROWS(NAME, KIND)                                                              \
  extern "C" __global__ void ctc_rows_##NAME(                                         \
      const void* __restrict__ scores, const int* __restrict__ lengths,               \
      const int* __restrict__ dims, float* __restrict__ peaks,                        \
      float* __restrict__ rests) {                                                    \
    rows<KIND>(scores, lengths, dims, peaks, rests, nullptr);                         \
  }                                                                                   \
  extern "C" __global__ void ctc_softmax_##NAME(                                      \
      const void* __restrict__ scores, const int* __restrict__ lengths,               \
      const int* __restrict__ dims, float* __restrict__ peaks,                        \
      float* __restrict__ rests, void* __restrict__ softmax) {                        \
    rows<KIND>(scores, lengths, dims, peaks, rests, softmax);                         \
  }
ROWS(float32, kFloat32)
ROWS(bfloat16, kBFloat16)
ROWS(float16, kFloat16)

#define WALKS(R)                                                                      \
  extern "C" __global__ void BOUNDS(                                                  \
      32 * (Layout<R>::kWarps + (Layout<R>::kApart ? kReaders : 0)),                  \
      Layout<R>::kApart ? 2 : 1) ctc_there_##R(                                       \
      const void* __restrict__ scores, const float* __restrict__ peaks,               \
      const float* __restrict__ rests, const int* __restrict__ ids,                   \
      const unsigned char* __restrict__ skips, const int* __restrict__ lengths,       \
      const int* __restrict__ counts, const int* __restrict__ dims,                   \
      double* __restrict__ shifts, Pair* __restrict__ kept) {                         \
    there<R>(scores, peaks, rests, ids, skips, lengths, counts, dims, shifts, kept);  \
  }                                                                                   \
  extern "C" __global__ void BOUNDS(                                                  \
      32 * (Layout<R>::kApart ? 2 * (Layout<R>::kWarps + kReaders) + kWriters                      \
                              : Layout<R>::kWarps),                                   \
      1) ctc_back_##R(                                                                \
      const void* __restrict__ scores, const float* __restrict__ peaks,               \
      const float* __restrict__ rests, const int* __restrict__ ids,                   \
      const unsigned char* __restrict__ skips, const int* __restrict__ lengths,       \
      const int* __restrict__ counts, const int* __restrict__ dims,                   \
      const double* __restrict__ shifts, const Pair* __restrict__ kept, const void*,  \
      float* __restrict__ log_z, void* gradient, Pair* rows, Occupancy* occupied,     \
      Pair* parked, int* order) {                                                     \
    back<R>(scores, peaks, rests, ids, skips, lengths, counts, dims, shifts, kept,    \
            log_z, gradient, rows, occupied, parked, order);                          \
  }
WALKS(1)
WALKS(2)
WALKS(4)
WALKS(8)

extern "C" __global__ void ctc_meet(const unsigned char* __restrict__ skips,
                                    const int* __restrict__ counts,
                                    const int* __restrict__ dims,
                                    const double* __restrict__ shifts,
                                    const Pair* __restrict__ kept,
                                    float* __restrict__ log_z) {
  only_meet(skips, counts, dims, shifts, kept, log_z);
}
