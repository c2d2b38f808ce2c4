#include "ops/keypoint_cells.h"

namespace pydistill {
template decltype(keypoint_cells<Cpu>) keypoint_cells<Cpu>;
}  // namespace pydistill
