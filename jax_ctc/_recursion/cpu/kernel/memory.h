// Memory of a task: grown, never shrunk, and counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

namespace jax_ctc {

// Bytes that all calls hold now, and the most they ever held: for the benchmarks.
struct Held {
  std::atomic<int64_t> now{0}, most{0};

  void add(int64_t bytes) {
    const int64_t sum = now.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    int64_t before = most.load(std::memory_order_relaxed);
    while (before < sum &&
           !most.compare_exchange_weak(before, sum, std::memory_order_relaxed)) {
    }
  }
};
inline Held held;

// An array without values, aligned to a cache line.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  // Room for `size` of them; what was there is gone. Throws std::bad_alloc.
  T* reserve(int64_t size) {
    if (size > size_) {
      release();
      data_ = static_cast<T*>(::operator new(size_t(size) * sizeof(T), kAlign));
      size_ = size;
      held.add(size_ * int64_t(sizeof(T)));
    }
    return data_;
  }

 private:
  static constexpr std::align_val_t kAlign{64};

  void release() {
    ::operator delete(data_, kAlign);
    held.add(-size_ * int64_t(sizeof(T)));
    data_ = nullptr;
    size_ = 0;
  }

  T* data_ = nullptr;
  int64_t size_ = 0;
};

// Hands out parts of a buffer, each on a cache line of its own; without one, only
// counts what they take.
template <typename T>
class Parts {
 public:
  explicit Parts(T* start = nullptr) : start_(start) {}
  T* take(int64_t size) {
    T* part = start_ ? start_ + used_ : nullptr;
    used_ += (size + kLine - 1) / kLine * kLine;
    return part;
  }
  int64_t used() const { return used_; }

 private:
  static constexpr int64_t kLine = 64 / sizeof(T);
  T* start_;
  int64_t used_ = 0;
};

}  // namespace jax_ctc
