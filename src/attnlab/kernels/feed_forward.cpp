// The feed-forward layer drop(gelu(x W1^T + b1)) W2^T + b2, and its gradients, some rows at a time: of what is as wide
// as the hidden layer only its inputs u = x W1^T + b1 are kept, and the rest never leaves the cache.

#include "dropout.h"
#include "gelu.h"
#include "products.h"

namespace {

constexpr int64_t ROWS = 96;  // at a time

struct Sizes {
    int64_t rows, width, hidden, threads;
};

inline void add(const float *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(load(to + i, LANES) + load(from + i, LANES), to + i, LANES);
}

}  // namespace

extern "C" {

// inputs [rows, width], first [width, hidden] and second [hidden, width] (the weights, transposed), biases ->
// reached [rows, hidden], the hidden layer before its activation, and outputs [rows, width]. Widths are multiples of
// LANES.
void feed_forward(
    const float *inputs, const float *first, const float *first_bias, const float *second, const float *second_bias,
    float *reached, float *outputs, const Kept *kept, const Sizes *sizes
) {
    const int64_t rows = sizes->rows, width = sizes->width, hidden = sizes->hidden, threads = sizes->threads;
    const float one = 1.0f;
#pragma omp parallel num_threads(threads)
    {
        std::vector<Vector> memory(ROWS * (width + 2 * hidden) / LANES);
        float *x = reinterpret_cast<float *>(memory.data()), *u = x + ROWS * width, *active = u + ROWS * hidden;
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < rows; row += ROWS) {
            const int64_t many = std::min(ROWS, rows - row);
            std::memcpy(x, inputs + row * width, many * width * sizeof(float));
            multiply({x, width, 1}, many, width, first, hidden, {u, hidden, false, &one, 0});
            for (int64_t r = 0; r < many; ++r) {
                for (int64_t i = 0; i < hidden; i += LANES) {
                    const int64_t here = r * hidden + i, there = row * hidden + here;
                    const Vector found = load(u + here, LANES) + load(first_bias + i, LANES);
                    Vector slope;
                    store(found, reached + there, LANES);
                    store(found * normal(found, slope) * kept->factor(there), active + here, LANES);
                }
            }
            multiply({active, hidden, 1}, many, hidden, second, width, {x, width, false, &one, 0});
            for (int64_t r = 0; r < many; ++r) {
                add(second_bias, x + r * width, width);
                std::memcpy(outputs + (row + r) * width, x + r * width, width * sizeof(float));
            }
        }
    }
}

// The gradients for those of the outputs. `first` [hidden, width] and `second` [width, hidden] are the weights; their
// gradients and those of the biases are for each of `shares` shares of the rows.
void feed_forward_backward(
    const float *inputs, const float *reached, const float *grad, const float *first, const float *second,
    float *of_inputs, float *of_first, float *of_first_bias, float *of_second, float *of_second_bias,
    const Kept *kept, const Sizes *sizes, int64_t shares
) {
    const int64_t rows = sizes->rows, width = sizes->width, hidden = sizes->hidden, threads = sizes->threads;
    const int64_t blocks = parts(rows, ROWS);
    const float one = 1.0f;
#pragma omp parallel num_threads(threads)
    {
        std::vector<Vector> memory(ROWS * 2 * (width + hidden) / LANES);
        float *x = reinterpret_cast<float *>(memory.data()), *g = x + ROWS * width;
        float *active = g + ROWS * width, *flow = active + ROWS * hidden;
#pragma omp for schedule(static) nowait
        for (int64_t share = 0; share < shares; ++share) {
            float *to_first = of_first + share * hidden * width, *to_second = of_second + share * hidden * width;
            float *to_first_bias = of_first_bias + share * hidden, *to_second_bias = of_second_bias + share * width;
            std::fill(to_first_bias, to_first_bias + hidden, 0.0f);
            std::fill(to_second_bias, to_second_bias + width, 0.0f);
            const int64_t begin = blocks * share / shares * ROWS, end = blocks * (share + 1) / shares * ROWS;
            for (int64_t row = begin; row < std::min(end, rows); row += ROWS) {
                const int64_t many = std::min(ROWS, rows - row);
                const bool more = row > begin;
                std::memcpy(x, inputs + row * width, many * width * sizeof(float));
                std::memcpy(g, grad + row * width, many * width * sizeof(float));
                multiply({g, width, 1}, many, width, second, hidden, {flow, hidden, false, &one, 0});
                for (int64_t r = 0; r < many; ++r) {
                    for (int64_t i = 0; i < hidden; i += LANES) {
                        const int64_t here = r * hidden + i, there = row * hidden + here;
                        const Vector u = load(reached + there, LANES), factor = kept->factor(there);
                        Vector slope;
                        const Vector phi = normal(u, slope);
                        store(u * phi * factor, active + here, LANES);
                        store(load(flow + here, LANES) * (phi + slope) * factor, flow + here, LANES);
                    }
                    add(g + r * width, to_second_bias, width);
                    add(flow + r * hidden, to_first_bias, hidden);
                }
                multiply({g, 1, width}, width, many, active, hidden, {to_second, hidden, more, &one, 0});
                multiply({flow, 1, hidden}, hidden, many, x, width, {to_first, width, more, &one, 0});
                multiply({flow, hidden, 1}, many, hidden, first, width, {x, width, false, &one, 0});
                std::memcpy(of_inputs + row * width, x, many * width * sizeof(float));
            }
        }
    }
}

}  // extern "C"
