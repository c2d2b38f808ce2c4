// How the cells of an image are shared out: one tile is one row of a launch.
#pragma once
#include "core/group.h"

namespace pydistill::math {

struct Tiles {  // row -> (image, `count` of `total` cells from `first`)
  int64_t total;
  int size;
  PD_HD int64_t per_image() const { return (total + size - 1) / size; }
  PD_HD int64_t image(int64_t row) const { return row / per_image(); }
  PD_HD int64_t first(int64_t row) const { return row % per_image() * size; }
  PD_HD int count(int64_t row) const { return total - first(row) < size ? int(total - first(row)) : size; }
};
// Whole rows of a picture, about `pixels` cells in a tile.
PD_HD Tiles bands(Grid grid, int pixels) { return {grid.h, grid.w < pixels && grid.w > 0 ? pixels / grid.w : 1}; }

}  // namespace pydistill::math
