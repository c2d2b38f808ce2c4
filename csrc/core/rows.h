// Rows<T>: the rows of a tensor of any strides, each of them n elements along one dimension.
#pragma once
#include <cstring>

#include "core/hostdevice.h"

namespace pydistill {

// Where a tensor's rows are: at most three nested strides, after neighbouring dimensions have been merged.
template <class T> struct Rows {
  T* data = nullptr;
  int64_t step = 0;               // from one element of a row to the next
  int64_t inner = 1, middle = 1;  // rows of the innermost level, and how often that repeats in the middle one
  int64_t stride[3] = {};         // outer, middle, inner

  PD_HD T* at(int64_t row) const {
    if (row < inner) return data + row * stride[2];
    const int64_t block = row / inner;
    const int64_t outer = block / middle;
    return data + outer * stride[0] + (block - outer * middle) * stride[1] + (row - block * inner) * stride[2];
  }
  PD_HD Rows<const T> read_only() const { return {data, step, inner, middle, {stride[0], stride[1], stride[2]}}; }
  // How many rows from `row` on lie stride[2] apart.
  PD_HD int64_t run(int64_t row) const { return row < inner ? inner - row : inner - row % inner; }
};

// The values at p, one per row, one behind the other.
template <class T> PD_HD Rows<const T> dense(const T* p) {
  return {p, 1, std::numeric_limits<int64_t>::max(), 1, {0, 0, 1}};
}
// Whether neighbours in memory are neighbouring rows.
template <class T> bool interleaved(const Rows<T>& rows) { return rows.stride[2] == 1 && rows.step != 1; }

// rows first .. first + count of n elements = 0
template <class T> void zero(const Rows<T>& rows, int n, int64_t first, int64_t count) {
  while (count > 0) {
    const int64_t run = rows.run(first) < count ? rows.run(first) : count;
    T* p = rows.at(first);
    if (rows.step == 1 && rows.stride[2] == n) {
      std::memset(static_cast<void*>(p), 0, size_t(run * n) * sizeof(T));
    } else if (rows.stride[2] == 1) {
      for (int i = 0; i < n; ++i) std::memset(static_cast<void*>(p + i * rows.step), 0, size_t(run) * sizeof(T));
    } else {
      for (int64_t r = 0; r < run; ++r)
        for (int i = 0; i < n; ++i) p[r * rows.stride[2] + i * rows.step] = T(0.f);
    }
    first += run, count -= run;
  }
}

// Asks for the n elements at p, a line of the cache at a time. For a CPU.
template <class T> PD_HD void prefetch(const T* p, int64_t n) {
#ifndef __CUDACC__
  asm volatile("");  // g++ 12 takes a function that only prefetches for one without effect, and drops the call
#endif
  constexpr int kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(p + i);
  __builtin_prefetch(p + n - 1);
}

// Asks for a row's memory ahead of its use; where its elements are far apart that is not worth it.
template <class T> void prefetch(const Rows<T>& rows, int n, int64_t row) {
  if (rows.step == 1) prefetch(rows.at(row), n);
}

// Those of `count` elements, `step` apart, that are not 0, counted from `first`; returns how many.
template <class T> int nonzero(const T* p, int64_t step, int64_t first, int count, int64_t* out) {
  constexpr int kBlock = 16;  // mostly zeros: look at sixteen at once
  int found = 0;
  for (int at = 0; at < count; at += kBlock) {
    const int last = at + kBlock < count ? at + kBlock : count;
    if (step == 1 && last - at == kBlock) {
      int any = 0;
#pragma omp simd reduction(| : any)
      for (int i = 0; i < kBlock; ++i) any |= p[at + i] != T(0);
      if (!any) continue;
    }
    for (int i = at; i < last; ++i) {
      out[found] = first + i;
      found += p[i * step] != T(0);
    }
  }
  return found;
}
// Those of the rows first .. first + count whose element is not 0.
template <class T> int nonzero(const Rows<const T>& rows, int64_t first, int count, int64_t* out) {
  const int64_t k = rows.inner;
  if (rows.stride[2] == 0 && k < count && first % k == 0 && count % k == 0) {  // one element counts for k rows
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    const Rows<const T> each{rows.data, rows.step, rows.middle, kMost, {0, rows.stride[0], rows.stride[1]}};
    const int found = nonzero(each, first / k, int(count / k), out);
    for (int i = found - 1; i >= 0; --i)
      for (int64_t j = k - 1; j >= 0; --j) out[i * k + j] = out[i] * k + j;
    return int(found * k);
  }
  int found = 0;
  while (count > 0) {
    const int run = rows.run(first) < count ? int(rows.run(first)) : count;
    found += nonzero(rows.at(first), rows.stride[2], first, run, out + found);
    first += run, count -= run;
  }
  return found;
}
// An absent tensor excludes no row.
template <class T> int nonzero_or_all(const Rows<const T>& rows, int64_t first, int count, int64_t* out) {
  if (rows.data) return nonzero(rows, first, count, out);
  for (int i = 0; i < count; ++i) out[i] = first + i;
  return count;
}

}  // namespace pydistill
