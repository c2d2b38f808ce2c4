#pragma once

struct __half {
  _Float16 value;
  __half() = default;
  __half(float v) : value(_Float16(v)) {}
  operator float() const { return value; }
};
