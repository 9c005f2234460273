// The kernels of ctc.cu by name, on a CPU.
#include "ctc.cu"

#include <map>
#include <string>
#include <utility>

template <class... Arguments>
std::function<void(void* const*)> caller(void (*kernel)(Arguments...)) {
  return [=](void* const* buffers) {
    auto call = [&]<size_t... i>(std::index_sequence<i...>) {
      kernel(static_cast<Arguments>(buffers[i])...);
    };
    call(std::index_sequence_for<Arguments...>{});
  };
}

#define ENTRY(NAME) {#NAME, caller(NAME)}
static const std::map<std::string, std::function<void(void* const*)>> kKernels = {
    ENTRY(ctc_rows_float32),    ENTRY(ctc_rows_bfloat16),    ENTRY(ctc_rows_float16),
    ENTRY(ctc_softmax_float32), ENTRY(ctc_softmax_bfloat16), ENTRY(ctc_softmax_float16),
    ENTRY(ctc_there_1),         ENTRY(ctc_there_2),          ENTRY(ctc_there_4),
    ENTRY(ctc_there_8),         ENTRY(ctc_there_16),         ENTRY(ctc_back_1),
    ENTRY(ctc_back_2),          ENTRY(ctc_back_4),           ENTRY(ctc_back_8),
    ENTRY(ctc_back_16),         ENTRY(ctc_meet),
};

extern "C" void emulate(const char* name, void* const* buffers, int grid, int block,
                        unsigned seed, int without) {
  emulation_seed = seed;
  emulation_without = without;
  const auto& kernel = kKernels.at(name);
  launch(grid, block, [&] { kernel(buffers); });
}
