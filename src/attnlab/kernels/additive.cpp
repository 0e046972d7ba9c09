// Scores of additive attention, e_ts = sum_a v_a tanh(q_ta + k_sa), and their gradients, with nothing of size T S A in
// memory: the backward pass computes the hidden layer again.
//
// What follows from a query or a key alone is computed once for each (`prepare`), so that a pair costs some products
// and one reciprocal. There are three forms of tanh(q + k), and each task takes the first in whose range its numbers
// lie. Within it every form is as exact as single precision is; NaN and infinity are left to the last.
//
// Tasks are shared out among threads, but each number is summed by one thread in one order: results do not depend on
// how many threads there are.

#include <limits>

#include "vectors.h"

namespace {

constexpr int64_t TILE = 64;          // queries and keys of a task of the forward pass
constexpr int64_t BLOCK = 4 * LANES;  // columns of a task of the backward pass
constexpr int64_t NEAR = 256;         // keys that it keeps in the first-level cache

// |q|, |k| <= 1/2: (tanh q + tanh k) / (1 + tanh q tanh k), which keeps the relative precision of small numbers.
struct Small {
    static constexpr float REACH = 0.5f, SLOPE = 1.0f;

    static Vector prepare(Vector x) {
        const Vector up = Exponential(2.0f * x).minus_one();
        return up / (up + 2.0f);
    }
    static Vector tanh(Vector q, Vector k) { return (q + k) * reciprocal(1.0f + q * k); }
    static Vector tanh(Vector q, Vector k, Vector &slope) {
        const Vector found = tanh(q, k);
        slope = 1.0f - found * found;
        return found;
    }
};

// |q|, |k| <= 21: 1 - 2 r with r = 1 / (1 + e^2q e^2k); its derivative is 4 r (1 - r), where 1 - r = e^2q e^2k r.
struct Usual {
    static constexpr float REACH = 21.0f, SLOPE = 4.0f;

    static Vector prepare(Vector x) { return Exponential(2.0f * x).value(); }
    static Vector tanh(Vector q, Vector k) { return 1.0f - 2.0f * reciprocal(1.0f + q * k); }
    static Vector tanh(Vector q, Vector k, Vector &slope) {
        const Vector product = q * k, r = reciprocal(1.0f + product);
        slope = product * r * r;
        return 1.0f - 2.0f * r;
    }
};

// Anything: from q + k itself, held where tanh is 1 to the last bit and nothing overflows. The dearest of the three,
// except for a single query or key: there nothing that is prepared would be used twice.
struct Any {
    static constexpr float SLOPE = 4.0f;

    static Vector prepare(Vector x) { return x; }
    static Exponential exponential(Vector q, Vector k) {
        const Vector limit = Vector{} + 40.0f;
        Vector x = q + k;
        x = x > limit ? limit : x;  // NaN stays
        x = x < -limit ? -limit : x;
        return Exponential(2.0f * x);
    }
    static Vector tanh(Vector q, Vector k) {
        const Vector up = exponential(q, k).minus_one();
        return up * reciprocal(2.0f + up);
    }
    static Vector tanh(Vector q, Vector k, Vector &slope) {
        const Exponential product = exponential(q, k);
        const Vector up = product.minus_one(), r = reciprocal(2.0f + up);
        slope = product.value() * r * r;
        return up * r;
    }
};

// Rows of `columns` numbers, each `stride` after the one before.
struct Rows {
    const float *at;
    int64_t count, stride, columns;

    Vector read(int64_t row, int64_t column) const { return load(at + row * stride + column, columns - column); }

    int64_t vectors() const { return parts(columns, LANES); }

    // Vector w of row r goes to to[r * by_row + w * by_vector].
    template <class Form>
    void prepare(Vector *to, int64_t by_row, int64_t by_vector) const {
        for (int64_t row = 0; row < count; ++row)
            for (int64_t w = 0; w < vectors(); ++w)
                to[row * by_row + w * by_vector] = Form::prepare(read(row, w * LANES));
    }
};

// Which numbers of some rows are out of reach of the forms, NaN among them.
struct Beyond {
    Bits small{}, usual{};

    void see(const Rows &rows) {
        for (int64_t row = 0; row < rows.count; ++row) {
            for (int64_t column = 0; column < rows.columns; column += LANES) {
                const Vector size = (Vector)((Bits)rows.read(row, column) & 0x7fffffffu);
                small |= ~(Bits)(size <= Small::REACH);
                usual |= ~(Bits)(size <= Usual::REACH);
            }
        }
    }
};

inline bool any(Bits lanes) {
    uint32_t found = 0;
    for (int64_t lane = 0; lane < LANES; ++lane) found |= lanes[lane];
    return found != 0;
}

// Calls loop(Form{}) with the form to use for these queries and keys.
template <class Loop>
void in_form(const Rows &query, const Rows &key, Loop loop) {
    if (query.count == 1 || key.count == 1) return loop(Any{});
    Beyond beyond;
    beyond.see(query);
    beyond.see(key);
    if (!any(beyond.small)) return loop(Small{});
    if (!any(beyond.usual)) return loop(Usual{});
    loop(Any{});
}

// The scores of a tile of queries and keys, rows of which lie `stride` apart.
template <class Form>
void score(const Rows &query, const Rows &key, const Vector *energy, float *scores, int64_t stride, Vector *own) {
    const int64_t width = query.vectors();
    Vector *q = own, *k = own + query.count * width;
    query.prepare<Form>(q, width, 1);
    key.prepare<Form>(k, width, 1);
    for (int64_t t = 0; t < query.count; ++t) {
        for (int64_t s = 0; s < key.count; ++s) {
            Vector sum{};
            for (int64_t w = 0; w < width; ++w) sum += energy[w] * Form::tanh(q[t * width + w], k[s * width + w]);
            scores[t * stride + s] = total(sum);
        }
    }
}

// What flows from the scores of one item to a vector of columns of each query and key, up to their energies; returns
// what flows to the energies.
template <class Form>
Vector flow(
    const Vector *q, int64_t queries, const Vector *k, int64_t keys, const float *grad, Vector *dq, Vector *dk
) {
    std::fill(dq, dq + queries, Vector{});
    std::fill(dk, dk + keys, Vector{});
    Vector dv{};
    for (int64_t first = 0; first < keys; first += NEAR) {
        const int64_t end = std::min(first + NEAR, keys);
        for (int64_t t = 0; t < queries; ++t) {
            const Vector here = q[t];
            Vector to_query{}, to_energy{};  // sums of sums, which round less
            for (int64_t s = first; s < end; ++s) {
                Vector slope;
                const Vector tanh = Form::tanh(here, k[s], slope);
                const float given = grad[t * keys + s];
                to_query += given * slope;
                dk[s] += given * slope;
                to_energy += given * tanh;
            }
            dq[t] += to_query;
            dv += to_energy;
        }
    }
    return dv;
}

// The gradients of one item in some columns, given those of its scores.
template <class Form>
void differentiate(
    const Rows &query, const Rows &key, const float *energy, const float *grad, float *grad_query, float *grad_key,
    float *grad_energy, Vector *own
) {
    const int64_t queries = query.count, keys = key.count, width = query.vectors();
    Vector *q = own, *k = q + width * queries, *dq = k + width * keys, *dk = dq + width * queries;
    query.prepare<Form>(q, 1, queries);
    key.prepare<Form>(k, 1, keys);
    for (int64_t w = 0; w < width; ++w) {
        const int64_t at_query = w * queries, at_key = w * keys;
        const Vector dv = flow<Form>(q + at_query, queries, k + at_key, keys, grad, dq + at_query, dk + at_key);
        store(dv, grad_energy + w * LANES, query.columns - w * LANES);
    }
    const auto give = [&](const Vector *from, const Rows &rows, float *to) {
        for (int64_t row = 0; row < rows.count; ++row) {
            for (int64_t w = 0; w < width; ++w) {
                const int64_t column = w * LANES, left = rows.columns - column;
                const Vector scale = Form::SLOPE * load(energy + column, left);
                store(scale * from[w * rows.count + row], to + row * rows.stride + column, left);
            }
        }
    };
    give(dq, query, grad_query);
    give(dk, key, grad_key);
}

// Keys for queries that come one at a time: as they are, as `Usual` prepares them, and the largest size among those of
// each item, infinite where NaN is among them.
struct Ready {
    const float *at, *prepared, *reaches;

    // Calls with(Form{}, keys) with the form to use for a query and the keys of an item as that form reads them.
    template <class With>
    void in_form(const float *query, int64_t item, int64_t keys, int64_t width, With with) const {
        const float far = std::max(reaches[item], reach({query, 1, width, width}));
        const int64_t begin = item * keys * width;
        // small numbers keep their precision in the last form as in the first
        if (far > Small::REACH && far <= Usual::REACH)
            with(Usual{}, Rows{prepared + begin, keys, width, width});
        else
            with(Any{}, Rows{at + begin, keys, width, width});
    }

    static float reach(const Rows &rows) {
        Vector top{};
        for (int64_t row = 0; row < rows.count; ++row) {
            for (int64_t column = 0; column < rows.columns; column += LANES) {
                const Vector size = (Vector)((Bits)rows.read(row, column) & 0x7fffffffu);
                top = size > top ? size : top;
                top = size == size ? top : Vector{} + std::numeric_limits<float>::infinity();
            }
        }
        return greatest(top);
    }
};

}  // namespace

extern "C" {

// query [items, queries, width], key [items, keys, width], energy [width] -> scores [items, queries, keys].
void additive_forward(
    const float *query, const float *key, const float *energy, float *scores, int64_t items, int64_t queries,
    int64_t keys, int64_t width, int64_t threads
) {
    const int64_t down = parts(queries, TILE), across = parts(keys, TILE), vectors = parts(width, LANES);
#pragma omp parallel num_threads(threads)
    {
        std::vector<Vector> own((1 + std::min(queries, TILE) + std::min(keys, TILE)) * vectors);
        for (int64_t w = 0; w < vectors; ++w) own[w] = load(energy + w * LANES, width - w * LANES);
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < items * down * across; ++task) {
            const int64_t item = task / (down * across), t = task / across % down * TILE, s = task % across * TILE;
            const Rows q{query + (item * queries + t) * width, std::min(TILE, queries - t), width, width};
            const Rows k{key + (item * keys + s) * width, std::min(TILE, keys - s), width, width};
            float *to = scores + (item * queries + t) * keys + s;
            in_form(q, k, [&](auto form) {
                score<decltype(form)>(q, k, own.data(), to, keys, own.data() + vectors);
            });
        }
    }
}

// The gradients of query, key and energy (the last for each item, [items, width]) for those of the scores.
void additive_backward(
    const float *query, const float *key, const float *energy, const float *grad, float *grad_query, float *grad_key,
    float *grad_energy, int64_t items, int64_t queries, int64_t keys, int64_t width, int64_t threads
) {
    const int64_t blocks = parts(width, BLOCK);
#pragma omp parallel num_threads(threads)
    {
        std::vector<Vector> own(2 * (queries + keys) * BLOCK / LANES);
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < items * blocks; ++task) {
            const int64_t item = task / blocks, column = task % blocks * BLOCK;
            const int64_t columns = std::min(BLOCK, width - column);
            const int64_t to_query = item * queries * width + column, to_key = item * keys * width + column;
            const Rows q{query + to_query, queries, width, columns}, k{key + to_key, keys, width, columns};
            in_form(q, k, [&](auto form) {
                differentiate<decltype(form)>(
                    q, k, energy + column, grad + item * queries * keys, grad_query + to_query, grad_key + to_key,
                    grad_energy + item * width + column, own.data()
                );
            });
        }
    }
}

// Keys [items, keys, width] made ready for queries that come one at a time: prepared [items, keys, width], reaches
// [items].
void additive_prepare(
    const float *key, float *prepared, float *reaches, int64_t items, int64_t, int64_t keys, int64_t width,
    int64_t threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t item = 0; item < items; ++item) {
        const Rows rows{key + item * keys * width, keys, width, width};
        reaches[item] = Ready::reach(rows);
        for (int64_t row = 0; row < keys; ++row)
            for (int64_t column = 0; column < width; column += LANES)
                store(
                    Usual::prepare(rows.read(row, column)), prepared + (item * keys + row) * width + column,
                    width - column
                );
    }
}

// The scores of such queries.
void additive_forward_ready(
    const float *query, const float *key, const float *prepared, const float *reaches, const float *energy,
    float *scores, int64_t items, int64_t queries, int64_t keys, int64_t width, int64_t threads
) {
    const Ready ready{key, prepared, reaches};
    const int64_t vectors = parts(width, LANES);
#pragma omp parallel num_threads(threads)
    {
        std::vector<Vector> own(2 * vectors);
        Vector *v = own.data(), *q = v + vectors;
        for (int64_t w = 0; w < vectors; ++w) v[w] = load(energy + w * LANES, width - w * LANES);
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < items * queries; ++row) {
            const Rows one{query + row * width, 1, width, width};
            ready.in_form(one.at, row / queries, keys, width, [&](auto form, const Rows &k) {
                using Form = decltype(form);
                one.prepare<Form>(q, vectors, 1);
                for (int64_t s = 0; s < keys; ++s) {
                    Vector sum{};
                    for (int64_t w = 0; w < vectors; ++w) sum += v[w] * Form::tanh(q[w], k.read(s, w * LANES));
                    scores[row * keys + s] = total(sum);
                }
            });
        }
    }
}

// The gradients of such queries alone.
void additive_backward_ready(
    const float *query, const float *key, const float *prepared, const float *reaches, const float *energy,
    const float *grad, float *grad_query, int64_t items, int64_t queries, int64_t keys, int64_t width, int64_t threads
) {
    const Ready ready{key, prepared, reaches};
    constexpr int64_t SUMS = BLOCK / LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < items * queries; ++row) {
        ready.in_form(query + row * width, row / queries, keys, width, [&](auto form, const Rows &k) {
            using Form = decltype(form);
            for (int64_t column = 0; column < width; column += BLOCK) {
                const int64_t begin = row * width + column, many = std::min(SUMS, parts(width - column, LANES));
                Vector sums[SUMS]{}, q[SUMS];
                for (int64_t w = 0; w < many; ++w)
                    q[w] = Form::prepare(load(query + begin + w * LANES, width - column - w * LANES));
                for (int64_t s = 0; s < keys; ++s) {
                    for (int64_t w = 0; w < many; ++w) {
                        Vector slope;
                        Form::tanh(q[w], k.read(s, column + w * LANES), slope);
                        sums[w] += grad[row * keys + s] * slope;
                    }
                }
                for (int64_t w = 0; w < many; ++w) {
                    const int64_t at = column + w * LANES, left = width - at;
                    store(Form::SLOPE * load(energy + at, left) * sums[w], grad_query + row * width + at, left);
                }
            }
        });
    }
}

}  // extern "C"
