// The texts of the CUDA kernels, launched by the driver on one small problem after the
// other, for compute-sanitizer: tools/sanitize.py says which, and how they are laid out.
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

static void ok(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  const char* text = nullptr;
  cuGetErrorString(result, &text);
  std::fprintf(stderr, "%s: %s\n", what, text ? text : "?");
  std::exit(3);
}
#define OK(CALL) ok(CALL, #CALL)

// Memory is garbage until it is written: whoever reads it before is found by initcheck.
static CUdeviceptr memory(size_t bytes) {
  CUdeviceptr pointer;
  OK(cuMemAlloc(&pointer, bytes ? bytes : 1));
  return pointer;
}
template <class T>
static CUdeviceptr copied(const std::vector<T>& values) {
  const CUdeviceptr pointer = memory(values.size() * sizeof(T));
  OK(cuMemcpyHtoD(pointer, values.data(), values.size() * sizeof(T)));
  return pointer;
}

static void launch(const std::string& folder, const std::string& kernel, int grid,
                   int block, std::vector<CUdeviceptr> pointers) {
  std::ifstream file(folder + "/" + kernel + ".ptx");
  std::stringstream text;
  text << file.rdbuf();
  CUmodule module;
  OK(cuModuleLoadData(&module, text.str().c_str()));
  CUfunction function;
  OK(cuModuleGetFunction(&function, module, kernel.c_str()));
  std::vector<void*> arguments;
  for (CUdeviceptr& pointer : pointers) arguments.push_back(&pointer);
  OK(cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, nullptr, arguments.data(),
                    nullptr));
  OK(cuCtxSynchronize());
  OK(cuModuleUnload(module));
}

int main(int argc, char** argv) {
  enum { kB, kT, kV, kU, kThere, kThereThreads, kBack, kBackThreads, kGroup, kGroups,
         kRows, kRowThreads, kCount };
  if (argc < 2 || (argc - 2) % kCount) return 2;
  const std::string folder = argv[1];
  OK(cuInit(0));
  CUdevice device;
  OK(cuDeviceGet(&device, 0));
  CUcontext context;
  OK(cuDevicePrimaryCtxRetain(&context, device));
  OK(cuCtxSetCurrent(context));

  for (int first = 2; first < argc; first += kCount) {
    int a[kCount];
    for (int i = 0; i < kCount; ++i) a[i] = std::atoi(argv[first + i]);
    const size_t B = a[kB], T = a[kT], V = a[kV], U = a[kU], S = U + 1;
    std::mt19937 random(0);
    std::normal_distribution<float> normal;
    std::vector<float> scores(B * T * V);
    for (float& x : scores) x = normal(random);
    std::vector<int> ids(B * S), lengths(B), counts(B);
    std::vector<unsigned char> skips(B * U);
    for (size_t b = 0; b < B; ++b) {
      lengths[b] = (int)(T - b * T / (4 * B));
      counts[b] = (int)std::min(U - b * U / (2 * B), (size_t)lengths[b] / 2);
      for (int n = 0; n < counts[b]; ++n) {
        ids[b * S + n] = 1 + (int)(random() % (V - 1));
        skips[b * U + n] = n > 0 && ids[b * S + n] != ids[b * S + n - 1];
      }
    }
    if (B > 1) counts[1] = -1;  // no path
    const std::vector<int> numbers{(int)B, (int)T, (int)V, (int)U, a[kGroup], a[kGroups],
                                   1, 0, a[kRows] == 1};
    const CUdeviceptr x = copied(scores), id = copied(ids), skip = copied(skips),
                      length = copied(lengths), count = copied(counts),
                      dims = copied(numbers), peaks = memory(B * T * 4),
                      rests = memory(B * T * 4), shifts = memory(2 * B * 8),
                      kept = memory(2 * B * (a[kGroups] + 2) * S * 16),
                      rows = memory(2 * B * 2 * a[kGroup] * S * 16),
                      occupied = memory(2 * B * 2 * a[kGroup] * S * 8),
                      parked = memory(2 * B * S * 16),
                      scratch = memory(2 * B * (3 * S + 2) * 4),
                      gradient = memory(B * T * V * 4), log_z = memory(B * 4);
    launch(folder, "ctc_softmax_float32", (int)((B * T + a[kRows] - 1) / a[kRows]),
           a[kRowThreads], {x, length, dims, peaks, rests, gradient});
    launch(folder, "ctc_there_" + std::to_string(a[kThere]), (int)(2 * B),
           a[kThereThreads],
           {x, peaks, rests, id, skip, length, count, dims, shifts, kept});
    launch(folder, "ctc_meet", (int)B, 32, {skip, count, dims, shifts, kept, log_z});
    launch(folder, "ctc_back_" + std::to_string(a[kBack]), (int)(2 * B), a[kBackThreads],
           {x, peaks, rests, id, skip, length, count, dims, shifts, kept, gradient, log_z,
            gradient, rows, occupied, parked, scratch});
    std::vector<float> found(B);
    OK(cuMemcpyDtoH(found.data(), log_z, B * 4));
    std::printf("%zu x %zu x %zu x %zu: log Z", B, T, V, U);
    for (float z : found) std::printf(" %g", z);
    std::printf("\n");
    for (CUdeviceptr pointer : {x, id, skip, length, count, dims, peaks, rests, shifts,
                                kept, rows, occupied, parked, scratch, gradient, log_z})
      OK(cuMemFree(pointer));
  }
  return 0;
}
