// Linear maps of some rows, by weights that are laid out for it: a panel of PANEL outputs lies in one piece, input by
// input. In bfloat16, inputs stand in pairs, whose products one instruction adds in single precision.

#pragma once

#include "vectors.h"

namespace {

constexpr int64_t PANEL = 4 * LANES;

struct Map {
    const void *weight;
    const float *bias;
    int64_t inputs, outputs;
};

// The sums of M rows of inputs with a panel.
template <int M>
__attribute__((always_inline)) inline void sum(const float *rows, int64_t inputs, const float *panel, Vector (&sums)[M][4]) {
    for (int64_t k = 0; k < inputs; ++k) {
        Vector weight[4];
        for (int v = 0; v < 4; ++v) weight[v] = load(panel + k * PANEL + v * LANES, LANES);
        for (int m = 0; m < M; ++m)
            for (int v = 0; v < 4; ++v) sums[m][v] += rows[m * inputs + k] * weight[v];
    }
}

#if defined(__AVX512BF16__)
template <int M>
__attribute__((always_inline)) inline void sum(const Brain *rows, int64_t inputs, const Brain *panel, Vector (&sums)[M][4]) {
    for (int64_t k = 0; k < inputs; k += 2) {
        __m512bh weight[4];
        for (int v = 0; v < 4; ++v) weight[v] = (__m512bh)_mm512_loadu_si512(panel + k * PANEL + 2 * v * LANES);
        for (int m = 0; m < M; ++m) {
            int32_t pair;
            std::memcpy(&pair, rows + m * inputs + k, sizeof pair);
            const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            for (int v = 0; v < 4; ++v) sums[m][v] = (Vector)_mm512_dpbf16_ps((__m512)sums[m][v], both, weight[v]);
        }
    }
}
#endif

// Not inlined, for within a larger function the compiler does not keep all sums in registers.
template <int M, class Number, class Sink>
__attribute__((noinline)) void strip(const Number *rows, int64_t row, int64_t count, const Map &map, int64_t output, const Sink &sink) {
    for (; row + M <= count; row += M) {
        Vector sums[M][4]{};
        sum<M>(rows + row * map.inputs, map.inputs, (const Number *)map.weight + output * map.inputs, sums);
        for (int m = 0; m < M; ++m)
            for (int v = 0; v < 4; ++v) {
                const int64_t at = output + v * LANES;
                sink(row + m, at, sums[m][v] + load(map.bias + at, LANES));
            }
    }
    if constexpr (M > 1)
        if (row < count) strip<M / 2>(rows, row, count, map, output, sink);
}

// Calls sink(row, output, vector) with a map of `count` rows of inputs, whose outputs are whole panels.
template <class Number, class Sink>
void apply(const Number *rows, int64_t count, const Map &map, const Sink &sink) {
#if defined(__AVX512F__)
    constexpr int M = 6;
#else
    constexpr int M = 2;  // there are 16 registers
#endif
    for (int64_t output = 0; output < map.outputs; output += PANEL) strip<M>(rows, 0, count, map, output, sink);
}

}  // namespace
