// One small problem through all kernels, for ThreadSanitizer.
#include "host.cc"

int main(int argc, char** argv) {
  enum { kB, kT, kV, kU, kThere, kThereThreads, kBack, kBackThreads, kGroup, kGroups,
         kRows, kRowThreads, kWithout, kCount };
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
  const int dims[] = {B, T, V, U, a[kGroup], a[kGroups], 1, 0, a[kRows] == 1};
  std::vector<double> shifts(2 * B);
  std::vector<float> gradient(scores.size());
  std::vector<Pair> kept((size_t)2 * B * (a[kGroups] + 2) * S), parked(2 * B * S);
  std::vector<Pair> rows((size_t)2 * B * 2 * a[kGroup] * S);
  std::vector<Occupancy> occupied(rows.size());
  std::vector<int> scratch(2 * B * Writer<1>::scratch(S));

  auto run = [&](const std::string& name, int grid, int block,
                 const std::vector<const void*>& buffers) {
    emulate(name.c_str(), const_cast<void* const*>(buffers.data()), grid, block, 0,
            a[kWithout]);
  };
  const void* x = scores.data();
  run("ctc_softmax_float32", (B * T + a[kRows] - 1) / a[kRows], a[kRowThreads],
      {x, lengths.data(), dims, peaks.data(), rests.data(), gradient.data()});
  run("ctc_there_" + std::to_string(a[kThere]), 2 * B, a[kThereThreads],
      {x, peaks.data(), rests.data(), ids.data(), skips.data(), lengths.data(),
       counts.data(), dims, shifts.data(), kept.data()});
  run("ctc_back_" + std::to_string(a[kBack]), 2 * B, a[kBackThreads],
      {x, peaks.data(), rests.data(), ids.data(), skips.data(), lengths.data(),
       counts.data(), dims, shifts.data(), kept.data(), gradient.data(), log_z.data(),
       gradient.data(), rows.data(), occupied.data(), parked.data(), scratch.data()});
  for (float z : log_z) std::printf("%g\n", z);
}
