#include "ops/box_keypoints.h"

namespace pydistill {
template decltype(box_keypoints<Cpu>) box_keypoints<Cpu>;
}  // namespace pydistill
