#include "ops/gaussian_region.h"

namespace pydistill {
template decltype(gaussian_region<Cpu>) gaussian_region<Cpu>;
}  // namespace pydistill
