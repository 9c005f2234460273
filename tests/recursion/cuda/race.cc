// One small problem through all kernels, a CPU thread for each CUDA thread.
#include "host.cc"

int main(int argc, char** argv) {
  enum { kB, kT, kV, kU, kR, kG, kQ, kF, kWide, kThere, kBack, kWithout, kCount };
  if (argc != kCount + 1) return 2;
  int a[kCount];
  for (int i = 0; i < kCount; ++i) a[i] = std::atoi(argv[i + 1]);
  const int B = a[kB], T = a[kT], V = a[kV], U = a[kU], S = U + 1;

  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  std::vector<float> scores(B * T * V), peaks(B * T), rests(B * T), log_z(B);
  for (float& x : scores) x = normal(random);
  std::vector<int> ids(B * S), lengths(B, T), counts(B);
  std::vector<unsigned char> skips(B * U);
  for (int b = 0; b < B; ++b) {
    counts[b] = min(U, T / 3) - b;
    for (int n = 0; n < counts[b]; ++n) {
      ids[b * S + n] = 1 + random() % (V - 1);
      skips[b * U + n] = n > 0 && ids[b * S + n] != ids[b * S + n - 1];
    }
  }
  const int dims[] = {B, T, V, U, a[kG], a[kQ], 1, 0, a[kWide]};
  std::vector<double> shifts(2 * B);
  std::vector<float> gradient(scores.size());
  std::vector<Pair> kept((size_t)2 * B * (a[kQ] + 1) * S), parked(2 * B * S);
  std::vector<Pair> rows((size_t)2 * B * 2 * a[kG] * a[kF] * S);
  std::vector<Occupancy> occupied(rows.size());
  std::vector<int> order(2 * B * S);

  auto run = [&](const std::string& name, int grid, int block,
                 const std::vector<const void*>& buffers) {
    emulate(name.c_str(), const_cast<void* const*>(buffers.data()), grid, block, 0,
            a[kWithout]);
  };
  const std::string R = std::to_string(a[kR]);
  const void* x = scores.data();
  run("ctc_softmax_float32", a[kWide] ? B * T : (B * T + 3) / 4, a[kWide] ? 256 : 128,
      {x, lengths.data(), dims, peaks.data(), rests.data(), gradient.data()});
  run("ctc_there_" + R, 2 * B, a[kThere],
      {x, peaks.data(), rests.data(), ids.data(), skips.data(), lengths.data(),
       counts.data(), dims, shifts.data(), kept.data()});
  run("ctc_back_" + R, 2 * B, a[kBack],
      {x, peaks.data(), rests.data(), ids.data(), skips.data(), lengths.data(),
       counts.data(), dims, shifts.data(), kept.data(), gradient.data(), log_z.data(),
       gradient.data(), rows.data(), occupied.data(), parked.data(),
       order.data()});
  for (float z : log_z) std::printf("%g\n", z);
}
