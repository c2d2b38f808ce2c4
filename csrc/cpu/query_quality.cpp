#include "ops/query_quality.h"

namespace pydistill {
template decltype(query_quality<Cpu>) query_quality<Cpu>;
}  // namespace pydistill
