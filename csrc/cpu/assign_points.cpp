#include "ops/assign_points.h"

namespace pydistill {
template decltype(assign_points<Cpu>) assign_points<Cpu>;
}  // namespace pydistill
