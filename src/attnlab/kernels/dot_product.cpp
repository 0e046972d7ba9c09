// Scaled dot-product attention softmax(q k^T / sqrt(d)) v of many short sequences, and its gradients. The weights stay
// in the cache: the backward pass computes them again.
//
// A task is one head of one item. It copies what it reads into memory of its own, in single precision and in rows of
// whole vectors, and takes some queries at a time over all keys. Each number is computed by one task in one order:
// results do not depend on how many threads there are.

#include <limits>
#include <utility>

#include "products.h"

namespace {

constexpr int64_t ROWS = 48;  // queries at a time

// Rows of a head, `columns` numbers each, `stride` apart.
template <class Number>
struct Rows {
    Number *at;
    int64_t count, columns, stride;

    Rows some(int64_t first, int64_t many) const { return {at + first * stride, many, columns, stride}; }

    // Row r times scale[r * each] to to[r * wide], whole vectors.
    void copy(float *to, int64_t wide, const float *scale, int64_t each) const {
        for (int64_t row = 0; row < count; ++row)
            for (int64_t column = 0; column < columns; column += LANES)
                store(
                    scale[row * each] * read(at + row * stride + column, columns - column), to + row * wide + column,
                    LANES
                );
    }

    // Number (r, c) to to[c * wide + r], whole vectors.
    void transpose(float *to, int64_t wide) const {
        for (int64_t row = 0; row < count; row += LANES) {
            for (int64_t column = 0; column < columns; column += LANES) {
                Vector block[LANES];
                for (int64_t i = 0; i < LANES; ++i) {
                    const bool there = row + i < count;
                    block[i] = there ? read(at + (row + i) * stride + column, columns - column) : Vector{};
                }
                exchange<LANES / 2>(block);
                const int64_t many = std::min(LANES, columns - column);
                for (int64_t i = 0; i < many; ++i) store(block[i], to + (column + i) * wide + row, LANES);
            }
        }
    }

    void take(const float *from, int64_t wide) const {
        for (int64_t row = 0; row < count; ++row)
            for (int64_t column = 0; column < columns; column += LANES)
                write(load(from + row * wide + column, LANES), at + row * stride + column, columns - column);
    }

  private:
    // Transposes a square of blocks of `APART` numbers, then each of them.
    template <int APART>
    static void exchange(Vector *block) {
        Bits upper, lower;
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            upper[lane] = lane & APART ? LANES + lane - APART : lane;
            lower[lane] = lane & APART ? LANES + lane : lane + APART;
        }
        for (int64_t i = 0; i < LANES; ++i) {
            if (i & APART) continue;
            const Vector first = block[i], second = block[i + APART];
            block[i] = __builtin_shuffle(first, second, upper);
            block[i + APART] = __builtin_shuffle(first, second, lower);
        }
        if constexpr (APART > 1) exchange<APART / 2>(block);
    }
};

// Numbers [items, heads, rows, width] whose last dimension is dense; the other strides in numbers.
struct Heads {
    void *at;
    int64_t item, head, row;

    template <class Number>
    Rows<Number> rows(int64_t n, int64_t h, int64_t count, int64_t columns) const {
        return {static_cast<Number *>(at) + n * item + h * head, count, columns, row};
    }
};

// Which keys a query may see, with the strides of items, heads, queries and keys; `at` is null where it is all.
struct Mask {
    const bool *at;
    int64_t item, head, row, key;
};

struct Sizes {
    int64_t items, heads, queries, keys, width, threads;

    int64_t many() const { return parts(keys, LANES) * LANES; }
    int64_t wide() const { return parts(width, LANES) * LANES; }
};

// The weights of some queries at a time, up to the factor `inverse` of each row.
struct Weights {
    const Sizes &sizes;
    const Mask &mask;
    int64_t many;
    float scale;
    float *keys, *queries, *hidden, *at, *inverse;

    static int64_t room(const Sizes &sizes) {
        const int64_t shown = ROWS * sizes.many();
        return (sizes.width + 1) * sizes.many() + ROWS * sizes.wide() + 2 * shown + ROWS;
    }

    Weights(const Sizes &sizes, const Mask &mask, float *&own)
        : sizes(sizes), mask(mask), many(sizes.many()), scale(1.0f / std::sqrt(float(sizes.width))) {
        const auto take = [&own](int64_t count) { return std::exchange(own, own + count); };
        keys = take(sizes.width * many);
        queries = take(ROWS * sizes.wide());
        hidden = take(ROWS * many);
        at = take(ROWS * many);
        inverse = take(ROWS);
    }

    // What is added to the scores of a row: 0, or -infinity for a key that is not to be seen.
    void hide(float *to, int64_t n, int64_t h, int64_t t) const {
        const float never = -std::numeric_limits<float>::infinity();
        const bool *seen = mask.at ? mask.at + n * mask.item + h * mask.head + t * mask.row : nullptr;
        for (int64_t s = 0; s < sizes.keys; ++s) to[s] = !seen || seen[s * mask.key] ? 0.0f : never;
        std::fill(to + sizes.keys, to + many, never);
    }

    template <class Number>
    void begin(const Rows<Number> &key, int64_t n, int64_t h) {
        key.transpose(keys, many);
        if (!mask.at || mask.row == 0) hide(hidden, n, h, 0);
    }

    template <class Number>
    void find(const Rows<Number> &query, int64_t n, int64_t h, int64_t t) {
        const float one = 1.0f, bits = scale * 1.44269504088896341f;  // scores in bits, for powers of two
        const int64_t wide = sizes.wide();
        query.copy(queries, wide, &bits, 0);
        multiply({queries, wide, 1}, query.count, sizes.width, keys, many, {at, many, false, &one, 0});
        const bool apart = mask.at && mask.row != 0;
        for (int64_t r = 0; r < query.count; ++r) {
            float *row = at + r * many, *extra = hidden + (apart ? r * many : 0);
            if (apart) hide(extra, n, h, t + r);
            Vector top = Vector{} - std::numeric_limits<float>::infinity();
            for (int64_t s = 0; s < many; s += LANES) {
                const Vector x = load(row + s, LANES) + load(extra + s, LANES);
                store(x, row + s, LANES);
                top = top > x ? top : x;
            }
            inverse[r] = 1.0f / powers(row, many, greatest(top));
        }
    }
};

template <class Number>
void forward(const Heads *given, const Heads &context, const Mask &mask, const Sizes &sizes) {
    const int64_t wide = sizes.wide();
#pragma omp parallel num_threads(sizes.threads)
    {
        std::vector<Vector> memory(parts(Weights::room(sizes) + (sizes.keys + ROWS) * wide, LANES));
        float *own = reinterpret_cast<float *>(memory.data());
        Weights weights(sizes, mask, own);
        float *values = own, *read = values + sizes.keys * wide;
        const float one = 1.0f;
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < sizes.items * sizes.heads; ++task) {
            const int64_t n = task / sizes.heads, h = task % sizes.heads;
            const auto query = given[0].rows<const Number>(n, h, sizes.queries, sizes.width);
            weights.begin(given[1].rows<const Number>(n, h, sizes.keys, sizes.width), n, h);
            given[2].rows<const Number>(n, h, sizes.keys, sizes.width).copy(values, wide, &one, 0);
            const auto result = context.rows<Number>(n, h, sizes.queries, sizes.width);
            for (int64_t t = 0; t < sizes.queries; t += ROWS) {
                const int64_t rows = std::min(ROWS, sizes.queries - t);
                weights.find(query.some(t, rows), n, h, t);
                const Target target{read, wide, false, weights.inverse, 1};
                multiply({weights.at, weights.many, 1}, rows, sizes.keys, values, wide, target);
                result.some(t, rows).take(read, wide);
            }
        }
    }
}

template <class Number>
void backward(const Heads *given, const Heads &grad, const Heads *wanted, const Mask &mask, const Sizes &sizes) {
    const int64_t wide = sizes.wide(), many = sizes.many();
#pragma omp parallel num_threads(sizes.threads)
    {
        const int64_t all = sizes.keys * wide, some = ROWS * wide;
        const int64_t room = Weights::room(sizes) + sizes.width * many + 3 * all + 2 * some + ROWS * many;
        std::vector<Vector> memory(parts(room, LANES));
        float *own = reinterpret_cast<float *>(memory.data());
        Weights weights(sizes, mask, own);
        float *values = own, *keys = values + sizes.width * many, *of_keys = keys + all, *of_values = of_keys + all;
        float *grads = of_values + all, *of_queries = grads + some, *slopes = of_queries + some;
        // queries are held times `scale` and in bits
        const float one = 1.0f, scale = weights.scale, natural = 0.693147180559945309f;
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < sizes.items * sizes.heads; ++task) {
            const int64_t n = task / sizes.heads, h = task % sizes.heads;
            const auto query = given[0].rows<const Number>(n, h, sizes.queries, sizes.width);
            const auto key = given[1].rows<const Number>(n, h, sizes.keys, sizes.width);
            const auto flow = grad.rows<const Number>(n, h, sizes.queries, sizes.width);
            const auto to_query = wanted[0].rows<Number>(n, h, sizes.queries, sizes.width);
            weights.begin(key, n, h);
            key.copy(keys, wide, &one, 0);
            given[2].rows<const Number>(n, h, sizes.keys, sizes.width).transpose(values, many);
            for (int64_t t = 0; t < sizes.queries; t += ROWS) {
                const int64_t rows = std::min(ROWS, sizes.queries - t);
                weights.find(query.some(t, rows), n, h, t);
                flow.some(t, rows).copy(grads, wide, weights.inverse, 1);
                multiply({grads, wide, 1}, rows, sizes.width, values, many, {slopes, many, false, &one, 0});
                for (int64_t r = 0; r < rows; ++r) {
                    const float *weight = weights.at + r * many;
                    float *slope = slopes + r * many;
                    Vector sum{};
                    for (int64_t s = 0; s < many; s += LANES) sum += load(weight + s, LANES) * load(slope + s, LANES);
                    const float mean = weights.inverse[r] * total(sum);
                    for (int64_t s = 0; s < many; s += LANES)
                        store(load(weight + s, LANES) * (load(slope + s, LANES) - mean), slope + s, LANES);
                }
                const Factor down{weights.at, 1, many}, across{slopes, 1, many};
                multiply(down, sizes.keys, rows, grads, wide, {of_values, wide, t > 0, &one, 0});
                multiply(across, sizes.keys, rows, weights.queries, wide, {of_keys, wide, t > 0, &natural, 0});
                const Target target{of_queries, wide, false, &scale, 0};
                multiply({slopes, many, 1}, rows, sizes.keys, keys, wide, target);
                to_query.some(t, rows).take(of_queries, wide);
            }
            wanted[1].rows<Number>(n, h, sizes.keys, sizes.width).take(of_keys, wide);
            wanted[2].rows<Number>(n, h, sizes.keys, sizes.width).take(of_values, wide);
        }
    }
}

}  // namespace

extern "C" {

// query, key, value: [items, heads, queries or keys, width], of bfloat16 if `brain`, else of float.
void dot_product_forward(
    const Heads *query_key_value, const Heads *context, const Mask *mask, const Sizes *sizes, bool brain
) {
    (brain ? forward<Brain> : forward<float>)(query_key_value, *context, *mask, *sizes);
}

// The gradients of query, key and value for that of the context.
void dot_product_backward(
    const Heads *query_key_value, const Heads *grad, const Heads *wanted, const Mask *mask, const Sizes *sizes,
    bool brain
) {
    (brain ? backward<Brain> : backward<float>)(query_key_value, *grad, wanted, *mask, *sizes);
}

}  // extern "C"
