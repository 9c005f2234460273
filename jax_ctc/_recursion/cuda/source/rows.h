// What every class has a part in: the normaliser of each frame, and its softmax.
//
//   peak = max_v x[v]      rest = sum of exp(x[v] - peak) over all v but one at the peak
//
// log p(v) = x[v] - peak - log1p(rest): where one class is nearly certain, the small rest
// is not rounded away beside the 1 of the winner. A thread may sum thousands of terms, and
// where they are alike each addition rounds the same way, in every frame: what the sum
// loses is kept.
#pragma once
#include "numbers.h"

namespace ctc {

constexpr int kRowWarps = 8;  // of a block that has one row
constexpr int kHeld = 4;      // scores that a lane holds, where a row has 128 at most

// What some threads found of a row, one after the other.
struct Found {
  float top, below, lost;
  int tied, nan;
  __device__ void look(float y) {
    top = fmaxf(top, y);
    nan |= isnan(y);
  }
  __device__ void add(float y) {
    const float term = y < top ? expf(y - top) : 0.0f, sum = below + term;
    const float grown = sum - below;
    lost += (below - (sum - grown)) + (term - grown);
    below = sum;
    tied += !(y < top);
  }
  __device__ void share_top() {
    for (int k = 16; k; k >>= 1) top = fmaxf(top, __shfl_xor_sync(kAll, top, k));
    nan = __any_sync(kAll, nan);
  }
  __device__ void share_sums() {
    below += lost;
    for (int k = 16; k; k >>= 1) {
      below += __shfl_xor_sync(kAll, below, k);
      tied += __shfl_xor_sync(kAll, tied, k);
    }
  }
};

// A warp a row, or (where rows are very long) a block a row.
template <int kKind>
__device__ void rows(const void* __restrict__ scores, const int* __restrict__ lengths,
                     const int* __restrict__ dims, float* __restrict__ peaks,
                     float* __restrict__ rests, void* __restrict__ softmax) {
  __shared__ Found of_top[kRowWarps], of_sums[kRowWarps];
  const int frames = dims[1], V = dims[2], warp = warp_index(), lane = threadIdx.x % 32;
  const bool normalise = dims[6], wide = dims[8];
  const int row = wide ? blockIdx.x : blockIdx.x * (blockDim.x / 32) + warp;
  if (row >= dims[0] * frames) return;
  const bool live = row % frames < lengths[row / frames];
  const int first = wide ? threadIdx.x : lane, step = wide ? blockDim.x : 32;
  const size_t start = (size_t)row * V;
  auto score = [&](int v) { return score_at(scores, start + v, kKind); };
  auto each = [&](auto visit) {
#pragma unroll 8
    for (int v = first; v < V; v += step) visit(v, live ? score(v) : 0.0f);
  };
  const bool held = V <= 32 * kHeld;
  float y[kHeld];
  auto each_held = [&](auto visit) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (i * 32 < V && i * 32 + lane < V) visit(i * 32 + lane, y[i]);
  };

  Found found = {-INFINITY, 0.0f, 0.0f, 0, 0};
  if (held) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      y[i] = live && i * 32 + lane < V ? score(i * 32 + lane) : 0.0f;
    each_held([&](int, float x) { found.look(x); });
  } else {
    each([&](int, float x) { found.look(x); });
  }
  found.share_top();
  if (wide) {
    if (lane == 0) of_top[warp] = found;
    meet_block(0);
    for (int w = 0; w < (int)blockDim.x / 32; ++w) {
      found.top = fmaxf(found.top, of_top[w].top);
      found.nan |= of_top[w].nan;
    }
  }
  if (held)
    each_held([&](int, float x) { found.add(x); });
  else
    each([&](int, float x) { found.add(x); });
  found.share_sums();
  if (wide) {
    if (lane == 0) of_sums[warp] = found;
    meet_block(1);
    found.below = 0, found.tied = 0;
    for (int w = 0; w < (int)blockDim.x / 32; ++w) {
      found.below += of_sums[w].below;
      found.tied += of_sums[w].tied;
    }
  }
  const float rest = found.below + (float)(found.tied - 1);
  const float peak = found.nan ? NAN : found.top;
  if (first == 0) {
    peaks[row] = live ? peak : 0.0f;
    rests[row] = live ? rest : 0.0f;
  }
  if (!softmax) return;
  const float scale = normalise && live ? 1.0f / (1.0f + rest) : 0.0f;
  auto write = [&](int v, float x) {
    write_at(softmax, start + v, scale > 0 ? expf(x - peak) * scale : 0.0f, kKind);
  };
  if (held)
    each_held(write);
  else
    each(write);
}

}  // namespace ctc
