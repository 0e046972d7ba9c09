// A step of a Transformer's decoder block in a search, in two halves, between which the source is attended to. In all
// that happens a row goes by itself, so that each thread takes its rows through a half without waiting for others. Each
// number is computed by one thread in one order: results do not depend on how many threads there are.

#include "gelu.h"
#include "panels.h"
#include "query.h"

namespace {

constexpr int64_t MOST = 192;  // rows at a time: what they need fits the second-level cache

struct Norm {
    const float *scale, *shift;
    float epsilon;
};

// To mean 0 and variance 1, times a scale, plus a shift: rows of `width` numbers, whole vectors.
template <class Number>
void normalize(const float *rows, int64_t count, int64_t width, const Norm &norm, Number *to) {
    for (int64_t r = 0; r < count; ++r, rows += width, to += width) {
        Vector first{}, second{};
        for (int64_t j = 0; j < width; j += LANES) first += load(rows + j, LANES);
        const float mean = total(first) / float(width);
        for (int64_t j = 0; j < width; j += LANES) {
            const Vector away = load(rows + j, LANES) - mean;
            second += away * away;
        }
        const float inverse = 1.0f / std::sqrt(total(second) / float(width) + norm.epsilon);
        for (int64_t j = 0; j < width; j += LANES) {
            const Vector x = (load(rows + j, LANES) - mean) * inverse;
            write(x * load(norm.scale + j, LANES) + load(norm.shift + j, LANES), to + j, LANES);
        }
    }
}

// Calls work(first, count) for some rows at a time, on all threads.
template <class Work>
void share(int64_t rows, int64_t threads, const Work &work) {
    const int64_t turns = parts(rows, threads * MOST), many = parts(rows, threads * turns);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < rows; first += many) work(first, std::min(many, rows - first));
}

// Memory for `count` rows of some widths, one behind the other.
template <class Number>
struct Memory {
    std::vector<Vector> all;
    Number *next;

    Memory(int64_t count, int64_t widths)
        : all(parts(count * widths * sizeof(Number), sizeof(Vector))), next(reinterpret_cast<Number *>(all.data())) {}

    Number *rows(int64_t count, int64_t width) {
        Number *here = next;
        next += count * width;
        return here;
    }
};

struct Own {
    Norm before, behind;
    Map project, out, query;
    int64_t rows, heads, positions, threads;
};

template <class Number>
void own(const float *tokens, const Own &own, const Keys &keys, float *sum, Number *projected, Number *queries) {
    const int64_t width = own.out.outputs, each = width / own.heads, three = own.project.outputs;
    share(own.rows, own.threads, [&](int64_t first, int64_t count) {
        Memory<Number> memory(count, 2 * width);
        Number *normed = memory.rows(count, width), *contexts = memory.rows(count, width);
        const float *here = tokens + first * width;
        float *added = sum + first * width;
        Number *parts = projected + first * three, *asked = queries + first * width;
        normalize(here, count, width, own.before, normed);
        apply(normed, count, own.project, [=](int64_t r, int64_t j, Vector x) { write(x, parts + r * three + j, LANES); });
        Query<Number> attention(own.positions, each);
        for (int64_t r = 0; r < count; ++r) {
            for (int64_t h = 0; h < own.heads; ++h) {
                attention.weigh(parts + r * three + h * each, keys, {}, first + r, h);
                attention.mix(keys, first + r, h, contexts + r * width + h * each);
            }
        }
        apply(contexts, count, own.out, [=](int64_t r, int64_t j, Vector x) {
            store(load(here + r * width + j, LANES) + x, added + r * width + j, LANES);
        });
        normalize(added, count, width, own.behind, normed);
        apply(normed, count, own.query, [=](int64_t r, int64_t j, Vector x) { write(x, asked + r * width + j, LANES); });
    });
}

struct Feed {
    Map out;
    Norm norm;
    Map first, second;
    int64_t rows, threads;
};

template <class Number>
void feed(const float *tokens, const Number *contexts, const Feed &feed, float *sum) {
    const int64_t width = feed.out.outputs, wide = feed.first.outputs;
    share(feed.rows, feed.threads, [&](int64_t first, int64_t count) {
        Memory<Number> memory(count, width + wide);
        Number *normed = memory.rows(count, width), *hidden = memory.rows(count, wide);
        const float *here = tokens + first * width;
        float *added = sum + first * width;
        apply(contexts + first * width, count, feed.out, [=](int64_t r, int64_t j, Vector x) {
            store(load(here + r * width + j, LANES) + x, added + r * width + j, LANES);
        });
        normalize(added, count, width, feed.norm, normed);
        apply(normed, count, feed.first, [=](int64_t r, int64_t j, Vector x) {
            Vector slope;
            write(x * normal(x, slope), hidden + r * wide + j, LANES);
        });
        apply(hidden, count, feed.second, [=](int64_t r, int64_t j, Vector x) {
            store(load(added + r * width + j, LANES) + x, added + r * width + j, LANES);
        });
    });
}

}  // namespace

extern "C" {

// The outputs of a panel.
int64_t block_panel() { return PANEL; }

// Whether there are instructions for bfloat16.
int64_t block_brain() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// tokens [rows, D] -> tokens behind the self-attention, its projections [rows, 3 D], and what the source is asked,
// [rows, D], these two of bfloat16 if `brain`, else of float. `keys` lie in the projections of all steps, this one
// included.
void block_own(
    const float *tokens, const Own *given, const Keys *keys, float *sum, void *projected, void *queries, int64_t brain
) {
#if defined(__AVX512BF16__)
    if (brain) return own(tokens, *given, *keys, sum, (Brain *)projected, (Brain *)queries);
#endif
    own(tokens, *given, *keys, sum, (float *)projected, (float *)queries);
}

// tokens [rows, D], contexts of the source [rows, D] -> the block's output.
void block_feed(const float *tokens, const void *contexts, const Feed *given, float *sum, int64_t brain) {
#if defined(__AVX512BF16__)
    if (brain) return feed(tokens, (const Brain *)contexts, *given, sum);
#endif
    feed(tokens, (const float *)contexts, *given, sum);
}

}  // extern "C"
