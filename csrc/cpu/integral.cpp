#include "ops/integral.h"

namespace pydistill {
template decltype(integral<Cpu>) integral<Cpu>;
template decltype(integral_backward<Cpu>) integral_backward<Cpu>;
}  // namespace pydistill
