// Memory that does not pay for page faults it need not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tts {

// Fresh memory comes in pages of 4 KiB, each at the price of a fault (about 0.25 microseconds for
// the kernel to zero and map it, more than the arithmetic on it). From this many bytes on, ask for
// pages of 2 MiB instead.
constexpr size_t huge_from = size_t{4} << 20;

// Asks for huge pages on the part of [data, data + bytes) that they can cover. Only advice:
// nothing happens where the system has none.
inline void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t{2} << 20;
  if (bytes < huge_from) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(page - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

// Uninitialised scratch of `size` values on cache-line boundaries. Throws std::bad_alloc.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    constexpr size_t line = 64;
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + line - 1) / line * line;
    data_ = static_cast<T*>(std::aligned_alloc(line, bytes > 0 ? bytes : line));
    if (data_ == nullptr) throw std::bad_alloc();
    advise_huge_pages(data_, bytes);
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace tts
