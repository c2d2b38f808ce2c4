#include "core/launch.cuh"
#include "ops/matched_box_loss.h"

namespace pydistill {
template decltype(matched_box_loss<Cuda>) matched_box_loss<Cuda>;
template decltype(matched_box_loss_backward<Cuda>) matched_box_loss_backward<Cuda>;
}  // namespace pydistill
