// The kernel as custom calls of XLA: shapes and dtypes are checked here, once a call.
#include "xla/ffi/api/ffi.h"

#include <string>

#include "batch.h"

namespace jax_ctc {
namespace {

namespace ffi = xla::ffi;

using Ints = ffi::Buffer<ffi::S32>;
using Bools = ffi::Buffer<ffi::PRED>;

bool has_shape(ffi::AnyBuffer::Dimensions found, std::initializer_list<int64_t> shape) {
  return std::equal(found.begin(), found.end(), shape.begin(), shape.end());
}

template <typename S>
bool score_as(ffi::ThreadPool& pool, Batch<float> sizes, const void* scores,
              void* gradient) {
  return score(pool, Batch<S>{sizes.B, sizes.T, sizes.V, sizes.U, sizes.normalise,
                              static_cast<const S*>(scores), sizes.ids, sizes.can_skip,
                              sizes.num_labels, sizes.logit_lengths, sizes.log_z,
                              static_cast<S*>(gradient)});
}

ffi::Error run(ffi::ThreadPool pool, bool normalise, ffi::AnyBuffer scores, Ints ids,
               Bools can_skip, Ints num_labels, Ints logit_lengths,
               ffi::ResultBuffer<ffi::F32> log_z, ffi::AnyBuffer* gradient) {
  const auto shape = scores.dimensions();
  if (shape.size() != 3) return ffi::Error::InvalidArgument("scores must be [B, T, V]");
  if (can_skip.dimensions().size() != 2) {
    return ffi::Error::InvalidArgument("can_skip must be [B, U]");
  }
  const int64_t B = shape[0], T = shape[1], V = shape[2], U = can_skip.dimensions()[1];
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / 4;
  if (T > kMost || V > kMost || U > kMost) {
    return ffi::Error::InvalidArgument("T, V and U must be below 2**29");
  }
  if (!has_shape(can_skip.dimensions(), {B, U}) ||
      !has_shape(ids.dimensions(), {B, U + 1}) ||
      !has_shape(num_labels.dimensions(), {B}) ||
      !has_shape(logit_lengths.dimensions(), {B}) ||
      !has_shape(log_z->dimensions(), {B})) {
    return ffi::Error::InvalidArgument(
        "with scores [B, T, V] and can_skip [B, U], ids must be [B, U + 1], and "
        "num_labels, logit_lengths and log_z [B]");
  }
  if (gradient && (!has_shape(gradient->dimensions(), {B, T, V}) ||
                   gradient->element_type() != scores.element_type())) {
    return ffi::Error::InvalidArgument("the gradient must be as the scores");
  }
  const Batch<float> sizes{B,
                           T,
                           V,
                           U,
                           normalise,
                           nullptr,
                           ids.typed_data(),
                           reinterpret_cast<const uint8_t*>(can_skip.typed_data()),
                           num_labels.typed_data(),
                           logit_lengths.typed_data(),
                           log_z->typed_data(),
                           nullptr};
  void* into = gradient ? gradient->untyped_data() : nullptr;
  bool is_done;
  switch (scores.element_type()) {
    case ffi::F32:
      is_done = score_as<float>(pool, sizes, scores.untyped_data(), into);
      break;
    case ffi::BF16:
      is_done = score_as<BFloat16>(pool, sizes, scores.untyped_data(), into);
      break;
    case ffi::F16:
      is_done = score_as<Float16>(pool, sizes, scores.untyped_data(), into);
      break;
    default:
      return ffi::Error::InvalidArgument("scores must be float32, bfloat16 or float16");
  }
  if (is_done) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "jax_ctc: out of memory for the lattices of " + std::to_string(B) +
                        " utterances of " + std::to_string(T) + " frames and " +
                        std::to_string(U) + " labels");
}

ffi::Error forward(ffi::ThreadPool pool, bool normalise, ffi::AnyBuffer scores,
                   Ints ids, Bools can_skip, Ints num_labels, Ints logit_lengths,
                   ffi::ResultBuffer<ffi::F32> log_z) {
  return run(pool, normalise, scores, ids, can_skip, num_labels, logit_lengths, log_z,
             nullptr);
}

ffi::Error forward_backward(ffi::ThreadPool pool, bool normalise, ffi::AnyBuffer scores,
                            Ints ids, Bools can_skip, Ints num_labels,
                            Ints logit_lengths, ffi::ResultBuffer<ffi::F32> log_z,
                            ffi::Result<ffi::AnyBuffer> gradient) {
  return run(pool, normalise, scores, ids, can_skip, num_labels, logit_lengths, log_z,
             &*gradient);
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

// The version of XLA's interface that this was built with: major * 1000 + minor.
extern "C" int JaxCtcInterface() {
  return XLA_FFI_API_MAJOR * 1000 + XLA_FFI_API_MINOR;
}

// The most bytes that calls held at a time since the last question.
extern "C" int64_t JaxCtcMostBytes() {
  return jax_ctc::held.most.exchange(jax_ctc::held.now.load());
}

#pragma GCC visibility pop
