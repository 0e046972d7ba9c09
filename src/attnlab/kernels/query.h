// Scaled dot-product attention of a single query.

#pragma once

#include <limits>

#include "vectors.h"

namespace {

constexpr float NEVER = -std::numeric_limits<float>::infinity();
constexpr float BITS = 1.44269504088896341f;  // log2 e: powers of two take the place of those of e

// Keys and values: where those of row n, head h and position s begin. Strides are in numbers.
struct Keys {
    const void *at;            // of all positions, or
    const void *const *steps;  // of each position; null where `at` says it
    int64_t item, head, position;
    const int64_t *rows;  // the item [n, s] of a row at a position; null for n
    int64_t down, along;
    int64_t value;  // numbers behind a key stands its value

    template <class Number>
    const Number *find(int64_t n, int64_t h, int64_t s) const {
        const Number *begin = static_cast<const Number *>(steps ? steps[s] : at) + (steps ? 0 : s * position);
        return begin + (rows ? rows[n * down + s * along] : n) * item + h * head;
    }
};

// Which positions of an item a head may see; `at` is null where it is all.
struct Mask {
    const bool *at;
    int64_t item, head, position;
};

template <class Number>
class Query {
    int64_t positions, width, vectors, room;
    std::vector<Vector> memory;
    Vector *held;
    float *scores;

  public:
    Query(int64_t positions, int64_t width)
        : positions(positions), width(width), vectors(parts(width, LANES)), room(parts(positions, LANES) * LANES),
          memory(vectors + room / LANES), held(memory.data()), scores(reinterpret_cast<float *>(held + vectors)) {}

    // The weights of row n and head h.
    const float *weigh(const Number *query, const Keys &keys, const Mask &mask, int64_t n, int64_t h) {
        const float scale = BITS / std::sqrt(float(width));
        for (int64_t j = 0; j < vectors; ++j) held[j] = scale * read(query + j * LANES, width - j * LANES);
        const int64_t item = keys.rows ? keys.rows[n * keys.down] : n;  // a mask is of items that are the same throughout
        const bool *seen = mask.at ? mask.at + item * mask.item + h * mask.head : nullptr;
        for (int64_t s = 0; s < positions; ++s) {
            const Number *key = keys.find<Number>(n, h, s);
            Vector sum{};
            for (int64_t j = 0; j < vectors; ++j) sum += held[j] * read(key + j * LANES, width - j * LANES);
            scores[s] = !seen || seen[s * mask.position] ? total(sum) : NEVER;
        }
        std::fill(scores + positions, scores + room, NEVER);
        Vector top = Vector{} + NEVER;
        for (int64_t s = 0; s < room; s += LANES) {
            const Vector x = load(scores + s, LANES);
            top = top > x ? top : x;
        }
        const float inverse = 1.0f / powers(scores, room, greatest(top));
        for (int64_t s = 0; s < room; s += LANES) store(inverse * load(scores + s, LANES), scores + s, LANES);
        return scores;
    }

    // The context under the weights that were found last.
    void mix(const Keys &keys, int64_t n, int64_t h, Number *context) {
        std::fill(held, held + vectors, Vector{});
        for (int64_t s = 0; s < positions; ++s) {
            const Number *value = keys.find<Number>(n, h, s) + keys.value;
            for (int64_t j = 0; j < vectors; ++j) held[j] += scores[s] * read(value + j * LANES, width - j * LANES);
        }
        for (int64_t j = 0; j < vectors; ++j) write(held[j], context + j * LANES, width - j * LANES);
    }
};

}  // namespace
