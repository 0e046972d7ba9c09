// What dropout does to the elements of a tensor.

#pragma once

#include "vectors.h"

namespace {

typedef int32_t Integers __attribute__((vector_size(LANES * sizeof(float))));

// Which elements dropout keeps: those whose bits are at least the threshold, times `scale`; all
// where `bits` is null.
struct Kept {
    const int16_t *bits;
    int64_t threshold;
    float scale;

    // Of the elements from one on, of which `count` are left.
    Vector factor(int64_t element, int64_t count = LANES) const {
        if (!bits) return Vector{} + 1.0f;
        const Integers drawn = (Integers)(widened(take<Halves>(bits + element, count)) << 16);  // times 2^16
        return drawn >= int32_t(threshold * 65536) ? Vector{} + scale : Vector{};
    }
};

}  // namespace
