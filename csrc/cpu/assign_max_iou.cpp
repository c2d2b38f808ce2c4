#include "ops/assign_max_iou.h"

namespace pydistill {
template decltype(assign_max_iou<Cpu>) assign_max_iou<Cpu>;
}  // namespace pydistill
