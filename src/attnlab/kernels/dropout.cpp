// Dropout: the random bits that decide what is kept, and their application in one pass.

#include "dropout.h"

namespace {

constexpr int64_t LEAST = 1 << 15;  // elements from which on threads share them

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): makes random numbers of a counter, each by itself.
inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

template <class Number>
void apply(const Number *inputs, const Kept &kept, Number *outputs, int64_t count, int64_t threads) {
    const auto some = [=](int64_t i, int64_t left) {
        write(read(inputs + i, left) * kept.factor(i, left), outputs + i, left);
    };
    const int64_t whole = count / LANES;
#pragma omp parallel for num_threads(count < LEAST ? 1 : threads) schedule(static)
    for (int64_t part = 0; part < whole; ++part) some(part * LANES, LANES);
    if (whole * LANES < count) some(whole * LANES, count - whole * LANES);
}

}  // namespace

extern "C" {

// `count` random numbers of 64 bits from a seed, whatever the number of threads.
void dropout_draw(uint64_t *to, int64_t count, uint64_t seed, int64_t threads) {
#pragma omp parallel for simd num_threads(count < LEAST / 4 ? 1 : threads) schedule(static)
    for (int64_t i = 0; i < count; ++i) to[i] = mix(seed + uint64_t(i + 1) * 0x9e3779b97f4a7c15u);
}

// Inputs times `scale` where their bits are at least the threshold, else times 0; of bfloat16 if `brain`, else of float.
void dropout_apply(
    const void *inputs, const int16_t *bits, void *outputs, int64_t count, int64_t threshold, float scale,
    int64_t brain, int64_t threads
) {
    const Kept kept{bits, threshold, scale};
    if (brain)
        apply((const Brain *)inputs, kept, (Brain *)outputs, count, threads);
    else
        apply((const float *)inputs, kept, (float *)outputs, count, threads);
}

}
