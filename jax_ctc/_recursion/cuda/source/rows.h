// What every class has a part in: the normaliser of each frame, and its softmax.
//
//   peak = max_v x[v]      rest = sum of exp(x[v] - peak) over all v but one at the peak
//
// log p(v) = x[v] - peak - log1p(rest): where one class is nearly certain, the small rest
// is not rounded away beside the 1 of the winner.
#pragma once
#include "numbers.h"

namespace ctc {

constexpr int kRowWarps = 8;  // of a block that has one row

// A warp a row, or (where rows are long) a block a row.
template <int kKind>
__device__ void rows(const void* __restrict__ scores, const int* __restrict__ lengths,
                     const int* __restrict__ dims, float* __restrict__ peaks,
                     float* __restrict__ rests, void* __restrict__ softmax) {
  __shared__ float tops[kRowWarps], belows[kRowWarps];
  __shared__ int ties[kRowWarps], nans[kRowWarps];
  const int V = dims[2], frames = dims[1], warp = warp_index(), lane = threadIdx.x % 32;
  const bool normalise = dims[6], wide = dims[8];
  const size_t row = wide ? blockIdx.x
                          : (size_t)blockIdx.x * (blockDim.x / 32) + warp;
  if (row >= (size_t)dims[0] * frames) return;
  const bool live = (int)(row % frames) < lengths[row / frames];
  const int first = wide ? threadIdx.x : lane, step = wide ? blockDim.x : 32;
  const size_t start = row * V;

  float top = -INFINITY;
  int nan = 0;
  if (live)
#pragma unroll 8
    for (int v = first; v < V; v += step) {
      float y = score_at(scores, start + v, kKind);
      top = fmaxf(top, y);
      nan |= isnan(y);
    }
  top = warp_max(top);
  nan = __any_sync(kAll, nan);
  if (wide) {
    if (lane == 0) tops[warp] = top, nans[warp] = nan;
    meet_block(0);
    for (int w = 0; w < (int)blockDim.x / 32; ++w) {
      top = fmaxf(top, tops[w]);
      nan |= nans[w];
    }
  }

  float below = 0;
  int tied = 0;
  if (live)
#pragma unroll 8
    for (int v = first; v < V; v += step) {
      float y = score_at(scores, start + v, kKind);
      below += y < top ? expf(y - top) : 0.0f;
      tied += !(y < top);
    }
  below = warp_sum(below);
  for (int k = 16; k; k >>= 1) tied += __shfl_xor_sync(kAll, tied, k);
  if (wide) {
    if (lane == 0) belows[warp] = below, ties[warp] = tied;
    meet_block(1);
    below = 0, tied = 0;
    for (int w = 0; w < (int)blockDim.x / 32; ++w) below += belows[w], tied += ties[w];
  }
  float rest = below + (float)(tied - 1);
  if (nan) top = NAN;
  if (wide ? threadIdx.x == 0 : lane == 0) {
    peaks[row] = live ? top : 0.0f;
    rests[row] = live ? rest : 0.0f;
  }

  if (!softmax) return;
  const float scale = normalise && live ? 1.0f / (1.0f + rest) : 0.0f;
#pragma unroll 8
  for (int v = first; v < V; v += step)
    write_at(softmax, start + v,
             scale > 0 ? expf(score_at(scores, start + v, kKind) - top) * scale : 0.0f,
             kKind);
}

}  // namespace ctc
