// Repeats recorded calls of the compiled functions without Python and torch, each tensor's storage an allocation of its
// own: compute-sanitizer then sees every access past an end, and little but the kernels.
//
//   replay FILE                   compares what the calls wrote with the recording
//   replay FILE --uninitialized   leaves fresh memory as it is, for initcheck, and compares nothing
//
// tools/record_launches.py makes FILE. `cmake --build BUILD --target replay` links this file with the module's kernels.
#include <cuda_runtime.h>

#include <cstdio>
#include <deque>
#include <functional>
#include <set>
#include <tuple>

#include "core/check.h"
#include "ops/functions.h"
#include "replay/memory.h"

namespace pydistill::replay {

// The arguments of one call, each as the type that the function wants.
class Arguments {
 public:
  Arguments(Recording& in, Memory& memory) : in_(in), memory_(memory) {}

  template <class T> T next() {
    if constexpr (std::is_same_v<T, TensorView>) {
      return tensor();
    } else if constexpr (std::is_arithmetic_v<T>) {
      in_.expect("number");
      if constexpr (std::is_same_v<T, double>) return in_.number();
      return T(in_.integer());
    } else {
      in_.expect("list");
      T list(size_t(in_.integer()));
      for (auto& item : list) item = next<typename T::value_type>();
      return list;
    }
  }

 private:
  TensorView tensor() {
    TensorView view;
    if (in_.next_is("none")) return view;
    in_.expect("tensor");
    const int64_t id = in_.integer(), offset = in_.integer();
    view.device = {Device::kType, 0};
    view.dtype = {uint8_t(in_.integer()), 0, 1};
    view.dtype.bits = uint8_t(in_.integer());
    view.ndim = int(in_.integer());
    std::vector<int64_t>& numbers = shapes_.emplace_back(size_t(2 * view.ndim));
    for (int64_t& n : numbers) n = in_.integer();
    view.shape = numbers.data(), view.strides = numbers.data() + view.ndim;
    view.data = memory_.at(id, view, offset);
    return view;
  }

  Recording& in_;
  Memory& memory_;
  std::deque<std::vector<int64_t>> shapes_;
};

template <class... Parameters>
void call(void (*function)(const Context&, Parameters...), Recording& in, Memory& memory) {
  in.expect("arguments");
  if (const int64_t n = in.integer(); n != int64_t(sizeof...(Parameters)))
    throw std::runtime_error("expected " + std::to_string(sizeof...(Parameters)) + " arguments, got " +
                             std::to_string(n));
  Arguments arguments(in, memory);
  const std::tuple<std::remove_cvref_t<Parameters>...> values{arguments.next<std::remove_cvref_t<Parameters>>()...};
  std::apply([&](const auto&... value) { function(Context{0, nullptr, 1}, value...); }, values);
  run(cudaDeviceSynchronize());
}

using Call = std::function<void(Recording&, Memory&)>;
#define PD_CALL(f) {#f, [](Recording& in, Memory& memory) { call(f<Device>, in, memory); }},
const std::map<std::string, Call> kFunctions = {PD_FUNCTIONS(PD_CALL)};

// Returns how many calls did something else than what was recorded.
int play(Recording& in, bool fills) {
  Memory memory(fills);
  std::set<std::string> called;
  std::string what;
  int calls = 0, failed = 0;
  while (!in.peek().empty()) {
    if (in.next_is("case")) {
      memory.clear();
      what = in.word();
      what += " " + in.word();
      what += " " + in.word();
      continue;
    }
    in.expect("call");
    const std::string name = in.word();
    if (!kFunctions.contains(name)) throw std::runtime_error("expected a compiled function, got " + name);
    const std::string where = "call " + std::to_string(++calls) + ", " + name + " of case " + what + ": ";
    called.insert(name);
    while (in.next_is("before")) memory.before(in);
    try {
      kFunctions.at(name)(in, memory);
    } catch (const std::exception& e) {
      throw std::runtime_error(where + e.what());
    }
    std::string wrong;
    while (in.next_is("after"))
      if (const std::string text = memory.after(in); wrong.empty()) wrong = text;
    if (!wrong.empty() && ++failed <= 20) std::printf("%s%s\n", where.c_str(), wrong.c_str());
  }
  std::printf("%d calls of %zu functions, %d with other results\n", calls, called.size(), failed);
  return failed;
}

}  // namespace pydistill::replay

int main(int count, char** arguments) {
  const bool raw = count == 3 && std::string(arguments[2]) == "--uninitialized";
  if (count != 2 && !raw) return std::printf("usage: replay FILE [--uninitialized]\n"), 2;
  try {
    pydistill::replay::Recording recording(arguments[1]);
    return pydistill::replay::play(recording, !raw) ? 1 : 0;
  } catch (const std::exception& e) {
    return std::printf("replay: %s\n", e.what()), 1;
  }
}
