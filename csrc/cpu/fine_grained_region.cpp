#include "ops/fine_grained_region.h"

namespace pydistill {
template decltype(fine_grained_region<Cpu>) fine_grained_region<Cpu>;
}  // namespace pydistill
