#include "ops/hungarian_match.h"

namespace pydistill {
template decltype(hungarian_match<Cpu>) hungarian_match<Cpu>;
}  // namespace pydistill
