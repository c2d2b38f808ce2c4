// Whether a point or an anchor passes a test with any box of its image.
#pragma once
#include "math/padded_boxes.h"

namespace pydistill::math {

struct Either {
  PD_HD uint8_t operator()(uint8_t a, uint8_t b) const { return a | b; }
  template <class A> PD_HD static A identity() { return 0; }
};

// One row = a tile of an image's cells. test.boxes: PaddedBoxes; test.against(image, j, first)(i): 1 where
// cell first + i passes it with box j; test.usable(at): whether cell `at` of the batch takes part.
template <class Test> struct AnyBox {
  Test test;
  uint8_t* inside;  // (B, A), 0 or 1
  Tiles tiles;

  template <class Group> PD_HD void operator()(Group g, int64_t row) const {
    const int64_t image = tiles.image(row), first = tiles.first(row), base = image * tiles.total + first;
    uint8_t* out = inside + base;
    g.column_fold(
        Grid{1, tiles.count(row)}, out, [n = test.boxes.count(image)](int) { return Span{0, n}; },
        [=, *this](int, int j) { return test.against(image, j, first); }, Either{});
    g.each(tiles.count(row), [=, t = test](int i) { out[i] = out[i] & t.usable(base + i); });
  }
};

}  // namespace pydistill::math
