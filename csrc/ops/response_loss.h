// Host side of response_loss, written once for both devices: check, then launch. Python allocates.
#pragma once
#include "math/response_loss.h"
#include "ops/feature_map.h"
#include "ops/softmax_kl.h"
#include "ops/zeros.h"

namespace pydistill {

namespace response {

// Of a tile, because boxes cover few: a line of a cache of each channel; a thread of a warp each.
template <class Device> constexpr int kPixels = std::is_same_v<Device, Cpu> ? 16 : 32;
constexpr int kCost = 1024;  // of a tile, roughly: most touch only the region

struct Heads {  // (B, c_i, H, W) each, those of the classes first
  const TensorList &student, &teacher;
  const TensorList* dstudent;  // or null
  size_t classes;              // how many of them
};

inline int64_t channels(const TensorList& heads, size_t first, size_t last) {
  int64_t n = 0;
  for (size_t i = first; i < last; ++i) n += heads[i].size(1);
  return n;
}

// A head whose pixels one stride leads through, and whose channels another: each channel is a map of its own.
template <class T> math::FeatureMap<T> head_map(const char* op, const char* name, const TensorView& t) {
  const int64_t h = t.size(2), w = t.size(3), pixel = w > 1 ? t.stride(3) : h > 1 ? t.stride(2) : 1;
  check::that(t.numel() == 0 || w <= 1 || h <= 1 || t.stride(2) == w * pixel, op, name, "other strides");
  return {t.ptr<T>(), t.stride(0), t.stride(1), pixel};
}

template <class S, class U> constexpr int64_t kTableWords = sizeof(math::HeadChannel<S, U>) / sizeof(int64_t);

// f(ResponseTiles, Tag<S>, Tag<U>) checks what is left to check. What it returns is called once `table` (channels, 12)
// holds the list of channels.
template <class Device, class F>
void with_heads(const Context& context, const char* op, const Heads& heads, const TensorView& region, bool logit,
                double student_clamp, double teacher_scale, double teacher_clamp, const TensorView& table, F f) {
  const size_t n = heads.student.size();
  check::that(
      n > 0 && heads.teacher.size() == n && heads.classes <= n && (!heads.dstudent || heads.dstudent->size() == n), op,
      "as many heads of the teacher as of the student", int64_t(heads.teacher.size()));
  check::rank(op, "region of shape (B, H, W)", region, 3);
  const int64_t b = region.size(0), h = region.size(1), w = region.size(2);
  const TensorView& any = heads.student[0];
  for (size_t i = 0; i < n; ++i) {
    const TensorView& one = heads.student[i];
    check::rank(op, "heads of shape (B, c, H, W)", one, 4);
    check::that(one.size(0) == b && one.size(2) == h && one.size(3) == w, op, "heads of the region's size", one);
    kl::same_shape(op, "teacher's heads of the student's shapes and device", one, heads.teacher[i]);
    check::kind(op, "heads", one, any.kind());
    check::kind(op, "teacher's heads", heads.teacher[i], heads.teacher[0].kind());
    check::that(check::same_device(one, any), op, "heads on one device", one);
    if (heads.dstudent) {
      kl::same_shape(op, "gradients of the student's shapes and device", one, (*heads.dstudent)[i]);
      check::kind(op, "gradients", (*heads.dstudent)[i], any.kind());
    }
  }
  const int64_t classes = channels(heads.student, 0, heads.classes),
                numbers = channels(heads.student, heads.classes, n);
  constexpr int64_t most = std::numeric_limits<int>::max();
  check::that(classes + numbers <= most && h * w <= most, op, "fewer than 2^31 channels and cells", region);
  kl::with_pair(op, any, heads.teacher[0], [&](auto s, auto u) {
    using S = typename decltype(s)::type;
    using U = typename decltype(u)::type;
    using A = typename Accumulate<S>::type;
    using Channel = math::HeadChannel<S, U>;
    check::buffer(op, "region", region, {b, h, w}, kind_of<A>, any);
    check::buffer(op, "table", table, {classes + numbers, kTableWords<S, U>}, ScalarKind::Int64, any);
    Channel* list = reinterpret_cast<Channel*>(table.ptr<int64_t>());
    struct Part {
      math::HeadChannels<S, U> some{};
      int count = 0;
    };
    std::vector<Part> parts;
    for (size_t from = 0; from < n; from += math::HeadChannels<S, U>::kMost) {
      auto& [some, count] = parts.emplace_back();
      some.out = list + channels(heads.student, 0, from);
      for (; count < math::HeadChannels<S, U>::kMost && from + size_t(count) < n; ++count) {
        const size_t i = from + size_t(count);
        some.head[count] = {head_map<const S>(op, "a student's head of regular strides", heads.student[i]),
                            head_map<const U>(op, "a teacher's head of regular strides", heads.teacher[i]),
                            {}};
        if (heads.dstudent)
          some.head[count].dstudent = head_map<S>(op, "gradients of regular strides", (*heads.dstudent)[i]);
        some.first[count + 1] = some.first[count] + int(heads.student[i].size(1));
      }
    }
    const auto run = f(math::ResponseTiles<S, U, A>{list,
                                                    int(classes),
                                                    int(numbers),
                                                    region.ptr<A>(),
                                                    {h * w, kPixels<Device>},
                                                    {A(1), A(student_clamp), A(1 - student_clamp), logit},
                                                    {A(teacher_scale), A(teacher_clamp), A(1 - teacher_clamp), true}},
                       s, u);
    for (const auto& [some, count] : parts) Device::rows(context, count, some.first[count], some);
    run();
  });
}

inline void inside(const char* op, const TensorView& memory, const TensorList& parts) {
  const char *begin = memory.ptr<char>(), *end = begin + memory.numel() * memory.dtype.bits / 8;
  for (const TensorView& part : parts) {
    int64_t last = 0;
    for (int d = 0; d < part.ndim; ++d) last += (part.size(d) - 1) * part.stride(d);
    const char* first = part.ptr<char>();
    check::that(part.numel() == 0 || (first >= begin && first + (last + 1) * part.dtype.bits / 8 <= end), op,
                "gradients inside their memory", part);
  }
}

inline void writable(const char* op, const TensorView& memory, const TensorList& parts) {
  if (memory.present()) {
    inside(op, memory, parts);
    without_gaps(op, memory);
  } else {
    for (const TensorView& part : parts) without_gaps(op, part);
  }
}

// Zeros in all gradients: at once where they share `memory`.
template <class Device>
void clear(const Context& context, const char* op, const TensorView& memory, const TensorList& parts) {
  if (memory.present()) return zeros<Device>(context, op, memory);
  for (const TensorView& part : parts) zeros<Device>(context, op, part);
}

}  // namespace response

// How many parts are summed apart.
template <class Device> int64_t response_tiles(int64_t images, int64_t pixels) {
  return images * math::Tiles{pixels, response::kPixels<Device>}.per_image();
}

// student, teacher: heads (B, c, H, W), the first `classes` of them heat maps. region (B, H, W). normalizer (): or None.
// table (channels, 12) int64, partial (3, tiles): scratch. losses (2,); factor (): kept.
template <class Device>
void response_loss(const Context& context, const TensorView& region, const TensorList& student,
                   const TensorList& teacher, int64_t classes, const TensorView& normalizer, bool logit,
                   double student_clamp, double teacher_scale, double teacher_clamp, double eps,
                   const TensorView& table, const TensorView& partial, const TensorView& losses,
                   const TensorView& factor) {
  constexpr auto op = "response_loss";
  response::with_heads<Device>(
      context, op, {student, teacher, nullptr, size_t(classes)}, region, logit, student_clamp, teacher_scale,
      teacher_clamp, table, [&]<class In, class S, class U>(const In& in, S, U) {
        using A = std::remove_cvref_t<decltype(*in.region)>;
        using Body = math::ResponseLoss<typename S::type, typename U::type, A>;
        const int64_t rows = response_tiles<Device>(region.size(0), region.size(1) * region.size(2));
        check::that(rows <= std::numeric_limits<int>::max(), op, "fewer than 2^31 tiles", region);
        if (normalizer.present()) check::buffer(op, "normalizer", normalizer, {}, kind_of<A>, region);
        check::buffer(op, "partial", partial, {3, rows}, kind_of<A>, region);
        check::buffer(op, "losses", losses, {2}, kind_of<A>, region);
        check::buffer(op, "factor", factor, {}, kind_of<A>, region);
        return [=, &context, bytes = Body::bytes(in.tiles.size), body = Body{in, partial.ptr<A>(), rows},
                total = math::ResponseTotal<A>{partial.ptr<A>(), normalizer.ptr<A>(), losses.ptr<A>(), factor.ptr<A>(),
                                               int(rows), A(1) / A(in.numbers < 1 ? 1 : in.numbers), A(eps)}] {
          Device::warp_rows(context, rows, response::kCost, body, bytes);
          Device::rows(context, 1, 3 * rows, total);
        };
      });
}

// dstudent: of the student's shapes, inside `memory` (n,) or, without it, each in memory of its own.
template <class Device>
void response_loss_backward(const Context& context, const TensorView& dlosses, const TensorList& student,
                            const TensorList& teacher, int64_t classes, const TensorView& region,
                            const TensorView& factor, bool logit, double student_clamp, double teacher_scale,
                            double teacher_clamp, const TensorView& table, const TensorView& memory,
                            const TensorList& dstudent) {
  constexpr auto op = "response_loss_backward";
  response::with_heads<Device>(
      context, op, {student, teacher, &dstudent, size_t(classes)}, region, logit, student_clamp, teacher_scale,
      teacher_clamp, table, [&]<class In, class S, class U>(const In& in, S, U) {
        using A = std::remove_cvref_t<decltype(*in.region)>;
        using Body = math::ResponseBackward<typename S::type, typename U::type, A>;
        check::buffer(op, "dlosses", dlosses, {2}, kind_of<A>, region);
        check::buffer(op, "factor", factor, {}, kind_of<A>, region);
        response::writable(op, memory, dstudent);
        const int64_t rows = response_tiles<Device>(region.size(0), region.size(1) * region.size(2));
        const Body body{in, dlosses.ptr<A>(), factor.ptr<A>(), A(1) / A(in.numbers < 1 ? 1 : in.numbers)};
        return [=, &context, &memory, &dstudent] {
          response::clear<Device>(context, op, memory, dstudent);
          Device::warp_rows(context, rows, response::kCost, body, Body::bytes(in.tiles.size));
        };
      });
}

}  // namespace pydistill
