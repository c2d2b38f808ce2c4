#include "core/launch.cuh"
#include "ops/distance_to_box.h"

namespace pydistill {
template decltype(distance_to_box<Cuda>) distance_to_box<Cuda>;
template decltype(distance_to_box_backward<Cuda>) distance_to_box_backward<Cuda>;
template decltype(box_to_distance<Cuda>) box_to_distance<Cuda>;
}  // namespace pydistill
