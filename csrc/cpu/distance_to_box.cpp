#include "ops/distance_to_box.h"

namespace pydistill {
template decltype(distance_to_box<Cpu>) distance_to_box<Cpu>;
template decltype(distance_to_box_backward<Cpu>) distance_to_box_backward<Cpu>;
template decltype(box_to_distance<Cpu>) box_to_distance<Cpu>;
}  // namespace pydistill
