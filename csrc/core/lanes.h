// Lanes<k>: k short rows side by side, one in each lane of a vector register; k is what fits the instruction set.
// A row is then a sequence of k-wide vectors, and the formulas of math/ compute with those as with numbers.
#pragma once
#include <concepts>

#include "core/group.h"

namespace pydistill {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class A, int k> struct VectorOf {
  typedef A type __attribute__((vector_size(k * sizeof(A))));
};

// Columns to rows, by exchanging what lies `s` off the diagonal for s = 1, 2, 4, ...
template <int s, int k, class V> inline void transpose(V (&block)[k]) {
  using Int = decltype(V{} < V{});
  Int low{}, high{};
  for (int lane = 0; lane < k; ++lane) {
    low[lane] = lane & s ? k + lane - s : lane;
    high[lane] = lane & s ? k + lane : lane + s;
  }
#pragma GCC unroll 16
  for (int i = 0; i < k; ++i) {
    if (i & s) continue;
    const V a = block[i], b = block[i + s];
    block[i] = __builtin_shuffle(a, b, low);
    block[i + s] = __builtin_shuffle(a, b, high);
  }
  if constexpr (2 * s < k) transpose<2 * s>(block);
}

template <int k> struct Lanes {
  template <class A> using Value = typename VectorOf<A, k>::type;
  struct Row {
    const int64_t* index;
    bool consecutive;
    template <class T> bool adjacent(const Rows<T>& x) const {
      return consecutive && x.stride[2] == 1 && x.run(index[0]) >= k;
    }
  };
  Arena* arena;
  explicit Lanes(Arena& a) : arena(&a) {}

  // Four partial results: shorter chains of additions, and smaller rounding errors in long rows.
  template <class F, class Op> auto fold(int n, const F& f, Op op) const {
    constexpr int kParts = 4;
    using V = decltype(f(0));
    if (n < kParts) {
      V total = f(0);
      for (int i = 1; i < n; ++i) total = op(total, f(i));
      return total;
    }
    V a = f(0), b = f(1), c = f(2), d = f(3);
    int i = kParts;
    for (; i + kParts <= n; i += kParts) a = op(a, f(i)), b = op(b, f(i + 1)), c = op(c, f(i + 2)), d = op(d, f(i + 3));
    for (; i < n; ++i) a = op(a, f(i));
    return op(op(a, b), op(c, d));
  }
  template <class F> auto sum(int n, const F& f) const { return fold(n, f, Plus{}); }
  template <class F> auto max(int n, const F& f) const { return fold(n, f, Max{}); }

  template <class F> auto keep(int n, const F& f) const {
    using V = decltype(f(0));
    V* kept = arena->take<V>(n);
    for (int i = 0; i < n; ++i) kept[i] = f(i);
    return [kept](int i) { return kept[i]; };
  }

  template <class A, class T> auto load(const Rows<const T>& x, Row row, int n) const {
    using V = Value<A>;
    V* near = arena->take<V>(n);
    if (row.adjacent(x)) {
      const T* p = x.at(row.index[0]);
      for (int i = 0; i < n; ++i) near[i] = vector<V>(p + i * x.step);
    } else {
      const T* p[k];
      for (int lane = 0; lane < k; ++lane) p[lane] = x.at(row.index[lane]);
      int i = 0;
      for (; x.step == 1 && i + k <= n; i += k) {
        V block[k];
#pragma GCC unroll 16
        for (int lane = 0; lane < k; ++lane) block[lane] = vector<V>(p[lane] + i);
        transpose<1>(block);
#pragma GCC unroll 16
        for (int j = 0; j < k; ++j) near[i + j] = block[j];
      }
      for (; i < n; ++i)
        for (int lane = 0; lane < k; ++lane) near[i][lane] = A(p[lane][i * x.step]);
    }
    return [near](int i) { return near[i]; };
  }

  template <class T, class F> void store(const Rows<T>& x, Row row, int n, const F& f) const {
    if (row.adjacent(x)) {
      T* p = x.at(row.index[0]);
      for (int i = 0; i < n; ++i) write(p + i * x.step, f(i));
      return;
    }
    T* p[k];
    for (int lane = 0; lane < k; ++lane) p[lane] = x.at(row.index[lane]);
    int i = 0;
    for (; x.step == 1 && i + k <= n; i += k) {
      decltype(f(0)) block[k];
#pragma GCC unroll 16
      for (int j = 0; j < k; ++j) block[j] = f(i + j);
      transpose<1>(block);
#pragma GCC unroll 16
      for (int lane = 0; lane < k; ++lane) write(p[lane] + i, block[lane]);
    }
    for (; i < n; ++i) {
      const auto v = f(i);
      for (int lane = 0; lane < k; ++lane) p[lane][i * x.step] = T(v[lane]);
    }
  }

  template <class A> Value<A> get(const Rows<const A>& x, Row row) const {
    if (row.adjacent(x)) return vector<Value<A>>(x.at(row.index[0]));
    Value<A> v;
    for (int lane = 0; lane < k; ++lane) v[lane] = *x.at(row.index[lane]);
    return v;
  }
  template <class A> void put(A* to, Row row, Value<A> v) const {
    if (row.consecutive) return write(to + row.index[0], v);
    for (int lane = 0; lane < k; ++lane) to[row.index[lane]] = v[lane];
  }

 private:
  template <class V, class T> static V vector(const T* p) {
    using A = std::remove_cvref_t<decltype(V{}[0])>;
    V v;
    if constexpr (std::is_same_v<A, T>) {
      std::memcpy(&v, p, sizeof(V));
    } else {
      Value<uint16_t> bits;
      std::memcpy(&bits, p, sizeof(bits));
      v = T::widen(__builtin_convertvector(bits, Value<uint32_t>), V{});
    }
    return v;
  }
  template <class T, class V> static void write(T* p, V v) {
    using A = std::remove_cvref_t<decltype(v[0])>;
    if constexpr (std::is_same_v<A, T>) {
      std::memcpy(p, &v, sizeof(V));
    } else {
      const auto bits = __builtin_convertvector(T::narrow(v, Value<uint32_t>{}), Value<uint16_t>);
      std::memcpy(p, &bits, sizeof(bits));
    }
  }
};

// A body that may run in Lanes: it computes in Scalar; active(first, count, out) lists those of `count` rows that it
// does not skip, clear(first, count) is what it does to a skipped one, and prefetch(row) asks for what a row will read.
template <class Body>
concept SideBySide = requires(const Body& b, int64_t* out) {
  typename Body::Scalar;
  { b.active(int64_t(), int(), out) } -> std::same_as<int>;
  b.clear(int64_t(), int64_t());
  b.prefetch(int64_t());
};

// The rows of such a body, a chunk at a time: those it skips are cleared, the others packed into lanes.
template <class Body> struct PackedRows {
  static constexpr int kRows = 1024;
  static constexpr int kLanes = kVectorBytes / sizeof(typename Body::Scalar);
  Body body;
  int64_t n;

  void operator()(Serial g, int64_t chunk) const {
    const int64_t first = chunk * kRows;
    const int count = n - first < kRows ? int(n - first) : kRows;
    int64_t index[kRows + kLanes];
    const int active = body.active(first, count, index);
    if (active < count) {
      for (int i = 0; i < active; ++i) body.prefetch(index[i]);
      body.clear(first, count);
    }
    if (active == 0) return;
    for (int i = active; i % kLanes; ++i) index[i] = index[active - 1];  // a repeated row writes the same again
    for (int i = 0; i < active; i += kLanes) {
      g.arena->clear();
      const bool consecutive = i + kLanes <= active && index[i + kLanes - 1] - index[i] == kLanes - 1;
      body(Lanes<kLanes>(*g.arena), {index + i, consecutive});
    }
  }
};

}  // namespace pydistill
