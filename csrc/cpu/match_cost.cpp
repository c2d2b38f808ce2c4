#include "ops/match_cost.h"

namespace pydistill {
template decltype(match_cost<Cpu>) match_cost<Cpu>;
}  // namespace pydistill
