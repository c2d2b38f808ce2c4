#include "ops/valuable_localization_region.h"

namespace pydistill {
template decltype(valuable_localization_region<Cpu>) valuable_localization_region<Cpu>;
}  // namespace pydistill
