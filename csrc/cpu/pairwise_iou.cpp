#include "ops/pairwise_iou.h"

namespace pydistill {
template decltype(pairwise_iou<Cpu>) pairwise_iou<Cpu>;
template decltype(pairwise_iou_backward<Cpu>) pairwise_iou_backward<Cpu>;
}  // namespace pydistill
