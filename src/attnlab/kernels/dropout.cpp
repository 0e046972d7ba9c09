// Dropout: the random bits that decide what is kept, and their application in one pass.

#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t LEAST = 1 << 15;  // elements from which on threads share them

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): makes random numbers of a counter, each by itself.
inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

inline float widen(float x) { return x; }
inline float widen(uint16_t x) {  // bfloat16: the upper half of a float
    const uint32_t bits = uint32_t(x) << 16;
    float found;
    std::memcpy(&found, &bits, sizeof found);
    return found;
}

inline void narrow(float x, float &to) { to = x; }
inline void narrow(float x, uint16_t &to) {  // to the nearest, of two equally near ones to the even one; NaN stays
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to = uint16_t(x == x ? rounded : 0x7fc0u);
}

template <class Number>
void apply(
    const Number *inputs, const int16_t *bits, Number *outputs, int64_t count, int16_t threshold, float scale,
    int64_t threads
) {
#pragma omp parallel for simd num_threads(count < LEAST ? 1 : threads) schedule(static)
    for (int64_t i = 0; i < count; ++i)
        narrow(widen(inputs[i]) * (bits[i] >= threshold ? scale : 0.0f), outputs[i]);
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
    if (brain)
        apply((const uint16_t *)inputs, bits, (uint16_t *)outputs, count, int16_t(threshold), scale, threads);
    else
        apply((const float *)inputs, bits, (float *)outputs, count, int16_t(threshold), scale, threads);
}
}
