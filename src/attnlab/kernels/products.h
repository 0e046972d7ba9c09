// Products of matrices that lie in the cache, in single precision.

#pragma once

#include "vectors.h"

namespace {

#if defined(__AVX512F__)
constexpr int SUMS = 24;  // of the registers, those that hold the sums of a tile
#else
constexpr int SUMS = 12;
#endif

// The left factor of a product: number (row, k) at at[row * down + k * along].
struct Factor {
    const float *at;
    int64_t down, along;
};

// Where a product goes: row r, times scale[r * each], to at + r * stride.
struct Target {
    float *at;
    int64_t stride;
    bool add;  // to what is there
    const float *scale;
    int64_t each;
};

// M rows and V vectors of the product with b, whose rows lie `stride` apart; their sums stay in registers.
template <int M, int V>
void tile(Factor a, int64_t depth, const float *b, int64_t stride, const Target &to, int64_t row, int64_t column) {
    Vector sums[M][V];
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < V; ++j) sums[i][j] = Vector{};
    const float *left = a.at + row * a.down;
    for (int64_t k = 0; k < depth; ++k) {
        Vector right[V];
        for (int j = 0; j < V; ++j) right[j] = load(b + k * stride + column + j * LANES, LANES);
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < V; ++j) sums[i][j] += left[i * a.down + k * a.along] * right[j];
    }
    for (int i = 0; i < M; ++i) {
        const float scale = to.scale[(row + i) * to.each];
        float *at = to.at + (row + i) * to.stride + column;
        for (int j = 0; j < V; ++j, at += LANES) {
            const Vector found = scale * sums[i][j];
            store(to.add ? load(at, LANES) + found : found, at, LANES);
        }
    }
}

// Rows `row` to `rows` of V vectors of columns, M at a time; the rest by smaller tiles.
template <int M, int V>
void strip(
    Factor a, int64_t row, int64_t rows, int64_t depth, const float *b, int64_t stride, const Target &to,
    int64_t column
) {
    for (; row + M <= rows; row += M) tile<M, V>(a, depth, b, stride, to, row, column);
    if constexpr (M > 1)
        if (row < rows) strip<(M > 8 ? 8 : M > 6 ? 6 : M > 4 ? 4 : M - 1), V>(a, row, rows, depth, b, stride, to, column);
}

// a [rows, depth] times b [depth, columns], whose columns are whole vectors.
void multiply(Factor a, int64_t rows, int64_t depth, const float *b, int64_t columns, const Target &to) {
    for (int64_t column = 0; column < columns;) {
        const int64_t left = (columns - column) / LANES;
        const int64_t vectors = left == 3 || left == 5 || left == 6 ? 3 : std::min<int64_t>(left, 4);
        if (vectors == 4) strip<SUMS / 4, 4>(a, 0, rows, depth, b, columns, to, column);
        if (vectors == 3) strip<SUMS / 3, 3>(a, 0, rows, depth, b, columns, to, column);
        if (vectors == 2) strip<SUMS / 2, 2>(a, 0, rows, depth, b, columns, to, column);
        if (vectors == 1) strip<12, 1>(a, 0, rows, depth, b, columns, to, column);
        column += vectors * LANES;
    }
}

}  // namespace
