#include "core/launch.cuh"
#include "ops/pairwise_iou.h"

namespace pydistill {
template decltype(pairwise_iou<Cuda>) pairwise_iou<Cuda>;
template decltype(pairwise_iou_backward<Cuda>) pairwise_iou_backward<Cuda>;
}  // namespace pydistill
