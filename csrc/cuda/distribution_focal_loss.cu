#include "core/launch.cuh"
#include "ops/distribution_focal_loss.h"

namespace pydistill {
template decltype(distribution_focal_loss<Cuda>) distribution_focal_loss<Cuda>;
template decltype(distribution_focal_loss_backward<Cuda>) distribution_focal_loss_backward<Cuda>;
}  // namespace pydistill
