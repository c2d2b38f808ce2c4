#include "ops/linear_sum_assignment.h"

namespace pydistill {
template decltype(linear_sum_assignment<Cpu>) linear_sum_assignment<Cpu>;
}  // namespace pydistill
