#include "ops/assign_atss.h"

namespace pydistill {
template decltype(assign_atss<Cpu>) assign_atss<Cpu>;
}  // namespace pydistill
