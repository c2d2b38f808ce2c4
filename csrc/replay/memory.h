// The storages of a case on the device, each an allocation of its own and not a byte longer than it must be.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "core/tensor.h"
#include "replay/recording.h"

namespace pydistill::replay {

inline void run(cudaError_t e) {
  if (e != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(e));
}

constexpr std::byte kFill{0x5a};  // what fresh memory holds here, unlike in the recording

// Where `got` is not what was recorded, as text; empty where it is. Integers are compared exactly, floating point numbers
// relative to the largest recorded.
template <class T>
std::string difference(const std::byte* got, const std::byte* want, int64_t bytes, double tolerance) {
  constexpr int64_t kSize = sizeof(T);
  const auto all = [](const std::byte* p, std::byte value) {
    return std::all_of(p, p + kSize, [=](std::byte b) { return b == value; });
  };
  const auto at = [](const std::byte* p) {
    T value;
    std::memcpy(&value, p, kSize);
    return double(value);
  };
  double largest = 0;
  for (int64_t i = 0; i + kSize <= bytes; i += kSize)
    if (std::isfinite(at(want + i))) largest = std::max(largest, std::abs(at(want + i)));
  const auto same = [&](const std::byte* g, const std::byte* w) {
    if (!std::memcmp(g, w, kSize) || all(w, kAddress)) return true;
    if (all(w, kUnwritten)) return all(g, kFill);
    const double a = at(g), b = at(w);
    return tolerance > 0 && (std::abs(a - b) <= tolerance * largest || (a != a && b != b));
  };
  int64_t i = 0;
  for (; i + kSize <= bytes; i += kSize)
    if (!same(got + i, want + i))
      return "element " + std::to_string(i / kSize) + " is " + std::to_string(at(got + i)) +
             (all(want + i, kUnwritten) ? ", recorded as not written" : ", recorded " + std::to_string(at(want + i)));
  if constexpr (kSize > 1) return difference<uint8_t>(got + i, want + i, bytes - i, 0);
  return {};
}

inline std::string difference(ScalarKind kind, const std::byte* got, const std::byte* want, int64_t bytes) {
  switch (kind) {
    case ScalarKind::Float64: return difference<double>(got, want, bytes, 1e-9);
    case ScalarKind::Float32: return difference<float>(got, want, bytes, 1e-4);
    case ScalarKind::Float16: return difference<Half>(got, want, bytes, 1e-2);
    case ScalarKind::BFloat16: return difference<BFloat16>(got, want, bytes, 3e-2);
    case ScalarKind::Int64: return difference<int64_t>(got, want, bytes, 0);
    case ScalarKind::Int32: return difference<int>(got, want, bytes, 0);
    default: return difference<uint8_t>(got, want, bytes, 0);
  }
}

class Memory {
 public:
  // fills: whether fresh memory is filled. Unfilled, initcheck sees who reads it, and nothing is compared.
  explicit Memory(bool fills) : fills_(fills) {}
  ~Memory() { clear(); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void clear() {
    for (auto& [id, storage] : storages_) cudaFree(storage.data);
    storages_.clear();
  }

  void before(Recording& in) {
    const int64_t id = in.integer(), bytes = in.integer();
    const bool known = storages_.contains(id);
    Storage& storage = storages_[id];
    storage.bytes = bytes;
    if (!known && bytes > 0) run(cudaMalloc(reinterpret_cast<void**>(&storage.data), size_t(bytes)));
    const std::string state = in.word();
    if (state == "given") {
      const std::byte* from = in.bytes(bytes);
      if (bytes > 0) run(cudaMemcpy(storage.data, from, size_t(bytes), cudaMemcpyHostToDevice));
    } else if (state == "fresh" && fills_ && bytes > 0) {
      run(cudaMemset(storage.data, int(kFill), size_t(bytes)));
    }
    storage.last = fills_ ? copy(storage) : std::vector<std::byte>();
  }

  std::byte* at(int64_t id, const TensorView& view, int64_t offset) {
    Storage& storage = storages_.at(id);
    if (storage.kind == ScalarKind::Other) storage.kind = view.kind();
    return storage.data ? storage.data + offset : nullptr;
  }

  // What is not as recorded; empty where all is.
  std::string after(Recording& in) {
    const int64_t id = in.integer();
    const Storage& storage = storages_.at(id);
    const std::byte* want = in.word() == "written" ? in.bytes(storage.bytes) : storage.last.data();
    if (!fills_) return {};
    const std::string text = difference(storage.kind, copy(storage).data(), want, storage.bytes);
    return text.empty() ? text : "storage " + std::to_string(id) + ", " + text;
  }

 private:
  struct Storage {
    std::byte* data = nullptr;
    int64_t bytes = 0;
    ScalarKind kind = ScalarKind::Other;  // of its first tensor
    std::vector<std::byte> last;          // its bytes before the call
  };

  std::vector<std::byte> copy(const Storage& storage) const {
    std::vector<std::byte> host(size_t(storage.bytes));
    if (storage.bytes > 0) run(cudaMemcpy(host.data(), storage.data, host.size(), cudaMemcpyDeviceToHost));
    return host;
  }

  bool fills_;
  std::map<int64_t, Storage> storages_;
};

}  // namespace pydistill::replay
