#include "core/launch.cuh"
#include "ops/quality_focal_loss.h"

namespace pydistill {
template decltype(quality_focal_loss<Cuda>) quality_focal_loss<Cuda>;
template decltype(quality_focal_loss_backward<Cuda>) quality_focal_loss_backward<Cuda>;
}  // namespace pydistill
