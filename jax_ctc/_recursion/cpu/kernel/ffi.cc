// The kernel as custom calls of XLA: shapes and dtypes are checked here, once a call.
#include "xla/ffi/api/ffi.h"

#include <string>

#include "batch.h"

namespace jax_ctc {
namespace {

namespace ffi = xla::ffi;

using Ints = ffi::Buffer<ffi::S32>;
using Bools = ffi::Buffer<ffi::PRED>;
using Floats = ffi::ResultBuffer<ffi::F32>;

bool has_shape(ffi::AnyBuffer::Dimensions found, std::initializer_list<int64_t> shape) {
  return std::equal(found.begin(), found.end(), shape.begin(), shape.end());
}

struct Inputs {
  bool normalise;
  ffi::AnyBuffer scores;
  Ints ids;
  Bools can_skip;
  Ints num_labels, logit_lengths;
};

// What is wrong with the shapes, or null.
const char* fault(const Inputs& in, Floats log_z) {
  const auto shape = in.scores.dimensions();
  if (shape.size() != 3) return "scores must be [B, T, V]";
  if (in.can_skip.dimensions().size() != 2) return "can_skip must be [B, U]";
  const int64_t B = shape[0], T = shape[1], V = shape[2],
                U = in.can_skip.dimensions()[1];
  constexpr int64_t kMost = int64_t(1) << 29;
  if (T >= kMost || V >= kMost || U >= kMost) return "T, V and U must be below 2**29";
  const bool is_fit = has_shape(in.can_skip.dimensions(), {B, U}) &&
                      has_shape(in.ids.dimensions(), {B, U + 1}) &&
                      has_shape(in.num_labels.dimensions(), {B}) &&
                      has_shape(in.logit_lengths.dimensions(), {B}) &&
                      has_shape(log_z->dimensions(), {B});
  if (is_fit) return nullptr;
  return "with scores [B, T, V] and can_skip [B, U], ids must be [B, U + 1], and "
         "num_labels, logit_lengths and log_z [B]";
}

// Do the work on the batch, which is false where memory ran out.
template <typename S, typename Work>
bool run_as(const Inputs& in, Floats log_z, void* gradient, Work work) {
  const auto shape = in.scores.dimensions();
  return work(Batch<S>{shape[0], shape[1], shape[2], in.can_skip.dimensions()[1],
                       in.normalise, static_cast<const S*>(in.scores.untyped_data()),
                       in.ids.typed_data(),
                       reinterpret_cast<const uint8_t*>(in.can_skip.typed_data()),
                       in.num_labels.typed_data(), in.logit_lengths.typed_data(),
                       log_z->typed_data(), static_cast<S*>(gradient)});
}

template <typename Work>
ffi::Error run(const Inputs& in, Floats log_z, void* gradient, Work work) {
  if (const char* why = fault(in, log_z)) return ffi::Error::InvalidArgument(why);
  bool is_done;
  switch (in.scores.element_type()) {
    case ffi::F32:
      is_done = run_as<float>(in, log_z, gradient, work);
      break;
    case ffi::BF16:
      is_done = run_as<BFloat16>(in, log_z, gradient, work);
      break;
    case ffi::F16:
      is_done = run_as<Float16>(in, log_z, gradient, work);
      break;
    default:
      return ffi::Error::InvalidArgument("scores must be float32, bfloat16 or float16");
  }
  if (is_done) return ffi::Error::Success();
  const auto shape = in.scores.dimensions();
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "jax_ctc: out of memory for the lattices of " +
                        std::to_string(shape[0]) + " utterances of " +
                        std::to_string(shape[1]) + " frames and " +
                        std::to_string(in.can_skip.dimensions()[1]) + " labels");
}

ffi::Error forward(ffi::ThreadPool pool, bool normalise, ffi::AnyBuffer scores,
                   Ints ids, Bools can_skip, Ints num_labels, Ints logit_lengths,
                   Floats log_z) {
  const Inputs in{normalise, scores, ids, can_skip, num_labels, logit_lengths};
  return run(in, log_z, nullptr, [&](auto batch) { return score(pool, batch); });
}

ffi::Error forward_backward(ffi::ThreadPool pool, bool normalise, ffi::AnyBuffer scores,
                            Ints ids, Bools can_skip, Ints num_labels,
                            Ints logit_lengths, Floats log_z,
                            ffi::Result<ffi::AnyBuffer> gradient) {
  const auto shape = scores.dimensions(), found = gradient->dimensions();
  if (!std::equal(shape.begin(), shape.end(), found.begin(), found.end()) ||
      gradient->element_type() != scores.element_type()) {
    return ffi::Error::InvalidArgument("the gradient must be as the scores");
  }
  const Inputs in{normalise, scores, ids, can_skip, num_labels, logit_lengths};
  return run(in, log_z, gradient->untyped_data(),
             [&](auto batch) { return score(pool, batch); });
}

ffi::Error best_path(ffi::ThreadPool pool, bool normalise, ffi::AnyBuffer scores,
                     Ints ids, Bools can_skip, Ints num_labels, Ints logit_lengths,
                     Floats log_p, ffi::ResultBuffer<ffi::S32> states) {
  const auto shape = scores.dimensions();
  if (shape.size() != 3 || !has_shape(states->dimensions(), {shape[0], shape[1]})) {
    return ffi::Error::InvalidArgument(
        "states must be [B, T] where scores are [B, T, V]");
  }
  const Inputs in{normalise, scores, ids, can_skip, num_labels, logit_lengths};
  return run(in, log_p, nullptr,
             [&](auto batch) { return find_paths(pool, batch, states->typed_data()); });
}

auto binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Attr<bool>("normalise")
      .Arg<ffi::AnyBuffer>()
      .Arg<Ints>()
      .Arg<Bools>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Ret<ffi::Buffer<ffi::F32>>();
}

}  // namespace
}  // namespace jax_ctc

// The build hides every symbol but these.
#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxCtcForward, jax_ctc::forward, jax_ctc::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxCtcForwardBackward, jax_ctc::forward_backward,
                              jax_ctc::binding().Ret<xla::ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    JaxCtcBestPath, jax_ctc::best_path,
    jax_ctc::binding().Ret<xla::ffi::Buffer<xla::ffi::S32>>());

// The version of XLA's interface that this was built with: major * 1000 + minor.
extern "C" int JaxCtcInterface() {
  return XLA_FFI_API_MAJOR * 1000 + XLA_FFI_API_MINOR;
}

// The most bytes that calls held at a time since the last question.
extern "C" int64_t JaxCtcMostBytes() {
  return jax_ctc::held.most.exchange(jax_ctc::held.now.load());
}

#pragma GCC visibility pop
