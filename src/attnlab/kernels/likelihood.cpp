// The log-likelihood of a target under the softmax of logits, and the gradient of the logits, each in a pass or two over
// a row. Each number is computed by one thread in one order: results do not depend on how many there are.

#include "query.h"

namespace {

struct Sizes {
    int64_t rows, types, width, threads;  // of `width` logits in memory the first `types` are real
    float smoothing;
};

// In the last vector of a row, lanes that are no types count as `otherwise`.
template <class Number>
inline Vector logits_at(const Number *row, int64_t j, int64_t types, float otherwise) {
    Vector x = read(row + j, types - j);
    if (types - j < LANES)
        for (int64_t lane = types - j; lane < LANES; ++lane) x[lane] = otherwise;
    return x;
}

template <class Number>
void forward(
    const Number *logits, const int64_t *targets, float *found, float *normalizers, const Sizes &sizes
) {
    const int64_t types = sizes.types;
#pragma omp parallel for num_threads(sizes.threads) schedule(static)
    for (int64_t n = 0; n < sizes.rows; ++n) {
        const Number *row = logits + n * sizes.width;
        Vector top = Vector{} + NEVER, sum{}, all{};
        for (int64_t j = 0; j < types; j += LANES) {
            const Vector x = logits_at(row, j, types, NEVER);
            top = top > x ? top : x;
        }
        const float highest = greatest(top);
        for (int64_t j = 0; j < types; j += LANES)
            sum += power_of_two((logits_at(row, j, types, NEVER) - highest) * BITS);
        const float size = std::log(total(sum));
        normalizers[n] = highest + size;
        float gold = read(row + targets[n], 1)[0] - highest;
        if (sizes.smoothing > 0) {
            for (int64_t j = 0; j < types; j += LANES) all += logits_at(row, j, types, highest) - highest;
            gold += sizes.smoothing * (total(all) / types - gold);
        }
        found[n] = gold - size;
    }
}

// d / d logits = g ((1 - s) onehot + s / V - P) in their place, and its sums over each BLOCK of rows, the bias's share.
constexpr int64_t BLOCK = 32;

template <class Number>
void backward(
    Number *logits, const int64_t *targets, const float *normalizers, const float *grad, float *to_bias,
    const Sizes &sizes
) {
    const int64_t types = sizes.types, width = sizes.width;
    const float smoothing = sizes.smoothing;
#pragma omp parallel for num_threads(sizes.threads) schedule(static)
    for (int64_t first = 0; first < sizes.rows; first += BLOCK) {
        float *sums = to_bias + first / BLOCK * width;
        std::fill(sums, sums + width, 0.0f);
        for (int64_t n = first; n < std::min(sizes.rows, first + BLOCK); ++n) {
            Number *row = logits + n * width;
            const float g = grad[n], normalizer = normalizers[n];
            const auto share = [&](Vector x) { return power_of_two((x - normalizer) * BITS); };
            const int64_t target = targets[n];
            const Vector right = g * (1.0f - smoothing + smoothing / types - share(read(row + target, 1)));
            for (int64_t j = 0; j < types; j += LANES) {
                const Vector flow = g * (smoothing / types - share(read(row + j, types - j)));
                write(flow, row + j, types - j);
                store(load(sums + j, types - j) + flow, sums + j, types - j);
            }
            write(right, row + target, 1);
            sums[target] += g * (1 - smoothing);
            std::memset(row + types, 0, (width - types) * sizeof(Number));
        }
    }
}

}  // namespace

extern "C" {

// Logits [rows, width], of bfloat16 if `brain`, else of float, and targets [rows] -> found [rows], normalizers [rows].
void likelihood_forward(
    const void *logits, const int64_t *targets, float *found, float *normalizers, const Sizes *sizes, int64_t brain
) {
    if (brain)
        forward((const Brain *)logits, targets, found, normalizers, *sizes);
    else
        forward((const float *)logits, targets, found, normalizers, *sizes);
}

// Their gradients, for grad [rows]: the logits', in their place, and to_bias [rows / BLOCK, width], which add up to that of
// a bias.
void likelihood_backward(
    void *logits, const int64_t *targets, const float *normalizers, const float *grad, float *to_bias,
    const Sizes *sizes, int64_t brain
) {
    if (brain)
        backward((Brain *)logits, targets, normalizers, grad, to_bias, *sizes);
    else
        backward((float *)logits, targets, normalizers, grad, to_bias, *sizes);
}

}  // extern "C"
