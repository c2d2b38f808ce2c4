#include "ops/general_instance_region.h"

namespace pydistill {
template decltype(general_instance_region<Cpu>) general_instance_region<Cpu>;
}  // namespace pydistill
