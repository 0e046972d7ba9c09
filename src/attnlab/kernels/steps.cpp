// What the steps of a search or of a decoder's loop do beside products with weights: attention of one query a row, an
// LSTM's gates, log-probabilities, and the best continuations. Each number is computed by one thread in one order:
// results do not depend on how many there are.

#include "query.h"

namespace {

struct Sizes {
    int64_t rows, items, heads, positions, width, threads;
};

template <class Number>
void attend(
    const Number *query, int64_t item, int64_t head, const Keys &keys, const Mask &mask, Number *contexts,
    float *weights, const Sizes &sizes
) {
#pragma omp parallel num_threads(sizes.threads)
    {
        Query<Number> attention(sizes.positions, sizes.width);
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < sizes.rows * sizes.heads; ++task) {
            const int64_t n = task / sizes.heads, h = task % sizes.heads;
            const float *found = attention.weigh(query + n * item + h * head, keys, mask, n, h);
            std::copy(found, found + sizes.positions, weights + task * sizes.positions);
            attention.mix(keys, n, h, contexts + task * sizes.width);
        }
    }
}

// Contexts [rows, width], sums of values weighted by weights [rows, positions]; strides of the values' rows and positions.
template <class Number>
void mix(
    const float *weights, const Number *values, int64_t row, int64_t position, Number *contexts, int64_t rows,
    int64_t positions, int64_t width, int64_t threads
) {
    constexpr int64_t VECTORS = 8;  // that stay in registers
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
        const float *weight = weights + n * positions;
        for (int64_t j = 0; j < width; j += VECTORS * LANES) {
            const int64_t many = std::min(VECTORS, parts(width - j, LANES));
            Vector sums[VECTORS]{};
            for (int64_t s = 0; s < positions; ++s) {
                const Number *value = values + n * row + s * position + j;
                for (int64_t v = 0; v < many; ++v) sums[v] += weight[s] * read(value + v * LANES, width - j - v * LANES);
            }
            for (int64_t v = 0; v < many; ++v)
                write(sums[v], contexts + n * width + j + v * LANES, width - j - v * LANES);
        }
    }
}

// Products [rows, positions] of queries [rows, width] and the keys of their rows; strides as those of values in `mix`.
template <class Number>
void dots(
    const Number *queries, const Number *keys, int64_t row, int64_t position, float *found, int64_t rows,
    int64_t positions, int64_t width, int64_t threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
        for (int64_t s = 0; s < positions; ++s) {
            const Number *query = queries + n * width, *key = keys + n * row + s * position;
            Vector sums[2]{};
            for (int64_t j = 0; j < width; j += 2 * LANES) {
                sums[0] += read(query + j, width - j) * read(key + j, width - j);
                if (j + LANES < width)
                    sums[1] += read(query + j + LANES, width - j - LANES) * read(key + j + LANES, width - j - LANES);
            }
            found[n * positions + s] = total(sums[0] + sums[1]);
        }
    }
}

inline Vector held(Vector x, float limit) {  // NaN stays
    x = x > limit ? Vector{} + limit : x;
    return x < -limit ? Vector{} - limit : x;
}

inline Vector sigmoid(Vector x) { return 1.0f / (1.0f + Exponential(held(-x, 86.0f)).value()); }

inline Vector tanh(Vector x) {
    const Vector up = Exponential(held(2.0f * x, 40.0f)).minus_one();
    return up / (up + 2.0f);
}

// Of LANES units of a row, from unit j on, the gates in torch's order, [rows, 4 size].
template <class Number>
struct Gates {
    Vector input, forget, fresh, output;

    Gates(const Number *inputs, const Number *recurrent, int64_t n, int64_t size, int64_t j) {
        const auto sum = [&](int64_t number) {
            const int64_t at = (4 * n + number) * size + j;
            return read(inputs + at, size - j) + read(recurrent + at, size - j);
        };
        input = sigmoid(sum(0)), forget = sigmoid(sum(1)), fresh = tanh(sum(2)), output = sigmoid(sum(3));
    }
};

template <class Number>
void lstm(
    const Number *inputs, const Number *recurrent, const Number *before, int64_t stride, Number *hidden, Number *cell,
    int64_t rows, int64_t size, int64_t threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
        for (int64_t j = 0; j < size; j += LANES) {
            const int64_t left = size - j;
            const Gates<Number> gates(inputs, recurrent, n, size, j);
            const Vector now = gates.forget * read(before + n * stride + j, left) + gates.input * gates.fresh;
            write(now, cell + n * size + j, left);
            write(gates.output * tanh(now), hidden + n * size + j, left);
        }
    }
}

template <class Number>
void lstm_back(
    const Number *inputs, const Number *recurrent, const Number *before, int64_t stride, const Number *of_hidden,
    const Number *of_cell, Number *of_gates, Number *of_before, int64_t rows, int64_t size, int64_t threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
        for (int64_t j = 0; j < size; j += LANES) {
            const int64_t left = size - j, at = n * size + j;
            const Gates<Number> gates(inputs, recurrent, n, size, j);
            const Vector last = read(before + n * stride + j, left);
            const Vector out = tanh(gates.forget * last + gates.input * gates.fresh), to_hidden = read(of_hidden + at, left);
            const Vector to_cell = read(of_cell + at, left) + to_hidden * gates.output * (1.0f - out * out);
            const auto give = [&](int64_t number, Vector x) { write(x, of_gates + (4 * n + number) * size + j, left); };
            give(0, to_cell * gates.fresh * gates.input * (1.0f - gates.input));
            give(1, to_cell * last * gates.forget * (1.0f - gates.forget));
            give(2, to_cell * gates.input * (1.0f - gates.fresh * gates.fresh));
            give(3, to_hidden * out * gates.output * (1.0f - gates.output));
            write(to_cell * gates.forget, of_before + at, left);
        }
    }
}

template <class Number>
void log_softmax(const Number *logits, float *found, int64_t rows, int64_t size, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
        const Number *row = logits + n * size;
        float *to = found + n * size;
        const Vector never = Vector{} + NEVER;
        const int64_t whole = size / LANES * LANES;
        // of the last vector, lanes that are none are lowest
        Vector last = never;
        for (int64_t j = whole; j < size; ++j) last[j - whole] = read(row + j, 1)[0];
        Vector top = last;
        for (int64_t j = 0; j < whole; j += LANES) {
            const Vector x = read(row + j, LANES);
            store(x, to + j, LANES);
            top = top > x ? top : x;
        }
        const float highest = greatest(top);
        Vector sum = power_of_two((last - highest) * BITS);
        for (int64_t j = 0; j < whole; j += LANES) sum += power_of_two((load(to + j, LANES) - highest) * BITS);
        const float all = highest + std::log(total(sum));
        for (int64_t j = 0; j < whole; j += LANES) store(load(to + j, LANES) - all, to + j, LANES);
        store(last - all, to + whole, size - whole);
    }
}

// The `count` largest of offsets[i] + values[i, j] in order, and their places i * size + j; of equals the first. NaN is
// none of them.
void largest(
    const float *offsets, const float *values, int64_t rows, int64_t size, int64_t count, float *found, int64_t *places
) {
    constexpr int64_t MANY = 8 * LANES;
    int64_t have = 0;
    for (int64_t i = 0; i < count; ++i) found[i] = NEVER, places[i] = i;
    const auto offer = [&](float x, int64_t place) {
        if (x != x || (have == count && !(x > found[count - 1]))) return;
        int64_t at = have < count ? have++ : count - 1;
        for (; at > 0 && x > found[at - 1]; --at) found[at] = found[at - 1], places[at] = places[at - 1];
        found[at] = x, places[at] = place;
    };
    const auto look = [&](int64_t i) {
        const float *row = values + i * size;
        int64_t j = 0;
        for (; j + MANY <= size; j += MANY) {
            Vector top = load(row + j, LANES);
            for (int64_t k = j + LANES; k < j + MANY; k += LANES) {
                const Vector x = load(row + k, LANES);
                top = top > x ? top : x;
            }
            if (have < count || offsets[i] + greatest(top) > found[count - 1])
                for (int64_t k = j; k < j + MANY; ++k) offer(offsets[i] + row[k], i * size + k);
        }
        for (; j < size; ++j) offer(offsets[i] + row[j], i * size + j);
    };
    for (int64_t i = 0; i < rows; ++i)
        if (offsets[i] > NEVER) look(i);
    for (int64_t i = 0; i < rows && have < count; ++i)
        if (!(offsets[i] > NEVER)) look(i);
}

}  // namespace

extern "C" {

// Contexts [rows, heads, width] of one query a row and head, its strides being those of rows and heads, and weights
// [rows, heads, positions]; numbers of bfloat16 if `brain`, else of float. Returns whether the rows' items are there.
bool steps_attend(
    const void *query, int64_t item, int64_t head, const Keys *keys, const Mask *mask, void *contexts, float *weights,
    const Sizes *sizes, int64_t brain
) {
    for (int64_t n = 0; keys->rows && n < sizes->rows; ++n)
        if (keys->rows[n] < 0 || keys->rows[n] >= sizes->items) return false;
    if (brain)
        attend((const Brain *)query, item, head, *keys, *mask, (Brain *)contexts, weights, *sizes);
    else
        attend((const float *)query, item, head, *keys, *mask, (float *)contexts, weights, *sizes);
    return true;
}

// Hidden state and cell [rows, size] after gates [rows, 4 size], the sum of two parts, from the cell before.
void steps_lstm(
    const void *inputs, const void *recurrent, const void *before, int64_t stride, void *hidden, void *cell,
    int64_t rows, int64_t size, int64_t threads, int64_t brain
) {
    if (brain)
        lstm(
            (const Brain *)inputs, (const Brain *)recurrent, (const Brain *)before, stride, (Brain *)hidden,
            (Brain *)cell, rows, size, threads
        );
    else
        lstm(
            (const float *)inputs, (const float *)recurrent, (const float *)before, stride, (float *)hidden,
            (float *)cell, rows, size, threads
        );
}

// The gradients of gates and of the cell before, from those of hidden state and cell.
void steps_lstm_back(
    const void *inputs, const void *recurrent, const void *before, int64_t stride, const void *of_hidden,
    const void *of_cell, void *of_gates, void *of_before, int64_t rows, int64_t size, int64_t threads, int64_t brain
) {
    if (brain)
        lstm_back(
            (const Brain *)inputs, (const Brain *)recurrent, (const Brain *)before, stride, (const Brain *)of_hidden,
            (const Brain *)of_cell, (Brain *)of_gates, (Brain *)of_before, rows, size, threads
        );
    else
        lstm_back(
            (const float *)inputs, (const float *)recurrent, (const float *)before, stride, (const float *)of_hidden,
            (const float *)of_cell, (float *)of_gates, (float *)of_before, rows, size, threads
        );
}

// Queries [rows, width] by keys [rows, positions, width] -> [rows, positions].
void steps_dots(
    const void *queries, const void *keys, int64_t row, int64_t position, float *found, int64_t rows,
    int64_t positions, int64_t width, int64_t threads, int64_t brain
) {
    if (brain)
        dots((const Brain *)queries, (const Brain *)keys, row, position, found, rows, positions, width, threads);
    else
        dots((const float *)queries, (const float *)keys, row, position, found, rows, positions, width, threads);
}

// Weights [rows, positions] over values [rows, positions, width] -> contexts [rows, width].
void steps_mix(
    const float *weights, const void *values, int64_t row, int64_t position, void *contexts, int64_t rows,
    int64_t positions, int64_t width, int64_t threads, int64_t brain
) {
    if (brain)
        mix(weights, (const Brain *)values, row, position, (Brain *)contexts, rows, positions, width, threads);
    else
        mix(weights, (const float *)values, row, position, (float *)contexts, rows, positions, width, threads);
}

void steps_log_softmax(
    const void *logits, float *found, int64_t rows, int64_t size, int64_t threads, int64_t brain
) {
    if (brain)
        log_softmax((const Brain *)logits, found, rows, size, threads);
    else
        log_softmax((const float *)logits, found, rows, size, threads);
}

// Of each of `items`, from offsets [items, rows] and values [items, rows, size].
void steps_largest(
    const float *offsets, const float *values, int64_t items, int64_t rows, int64_t size, int64_t count, float *found,
    int64_t *places, int64_t threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < items; ++b)
        largest(offsets + b * rows, values + b * rows * size, rows, size, count, found + b * count, places + b * count);
}

}  // extern "C"
