// Arena: scratch memory of one CPU thread. Handed out in order, taken back all at once before the next row.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "core/hostdevice.h"

namespace pydistill {

// What scratch<T>(n) takes: whole 16-byte words, so that the next T is aligned.
template <class T> PD_HD int64_t scratch_bytes(int64_t n) { return (n * int64_t(sizeof(T)) + 15) / 16 * 16; }

class Arena {
 public:
  static constexpr size_t kAlign = 64;

  template <class T> T* take(int64_t n) {
    const size_t bytes = (size_t(scratch_bytes<T>(n)) + kAlign - 1) / kAlign * kAlign;
    if (used_ + bytes > size_) grow(bytes);
    T* p = reinterpret_cast<T*>(block_ + used_);
    used_ += bytes;
    return p;
  }

  void clear() {
    used_ = 0;
    if (blocks_.size() > 1) blocks_.erase(blocks_.begin(), blocks_.end() - 1);
  }

  static Arena& of_this_thread() {
    thread_local Arena arena;
    return arena;
  }

 private:
  void grow(size_t bytes) {  // earlier blocks stay where they are until clear(): pointers into them are in use
    size_ = bytes > 2 * size_ ? bytes : 2 * size_;
    blocks_.push_back(std::make_unique_for_overwrite<std::byte[]>(size_ + kAlign));
    void* p = blocks_.back().get();
    size_t space = size_ + kAlign;
    block_ = static_cast<std::byte*>(std::align(kAlign, size_, p, space));
    used_ = 0;
  }

  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::byte* block_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

}  // namespace pydistill
