#include "core/launch.cuh"
#include "ops/matched_class_loss.h"

namespace pydistill {
template decltype(matched_class_loss<Cuda>) matched_class_loss<Cuda>;
template decltype(matched_class_loss_backward<Cuda>) matched_class_loss_backward<Cuda>;
}  // namespace pydistill
