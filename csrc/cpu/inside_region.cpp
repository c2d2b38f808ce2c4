#include "ops/inside_region.h"

namespace pydistill {
template decltype(inside_region<Cpu>) inside_region<Cpu>;
}  // namespace pydistill
