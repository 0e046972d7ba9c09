// What the kernels share: as many numbers as a register holds, and elementary functions of them.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int64_t LANES = 16;
#elif defined(__AVX__)
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef uint32_t Bits __attribute__((vector_size(LANES * sizeof(float))));

int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }

// The first `count` numbers, or as many as there are lanes; 0 in the rest.
template <class Register, class Number>
inline Register take(const Number *from, int64_t count) {
    Register x{};
    if (count >= LANES) {
        std::memcpy(&x, from, sizeof x);
        return x;
    }
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const __mmask16 there = (1u << count) - 1;
    if constexpr (sizeof(Number) == 4) return (Register)_mm512_maskz_loadu_epi32(there, from);
    if constexpr (sizeof(Number) == 2) return (Register)_mm256_maskz_loadu_epi16(there, from);
#endif
    std::memcpy(&x, from, count * sizeof(Number));
    return x;
}

template <class Register, class Number>
inline void put(Register x, Number *to, int64_t count) {
    if (count >= LANES) {
        std::memcpy(to, &x, sizeof x);
        return;
    }
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const __mmask16 there = (1u << count) - 1;
    if constexpr (sizeof(Number) == 4) return _mm512_mask_storeu_epi32(to, there, (__m512i)x);
    if constexpr (sizeof(Number) == 2) return _mm256_mask_storeu_epi16(to, there, (__m256i)x);
#endif
    std::memcpy(to, &x, count * sizeof(Number));
}

inline Vector load(const float *from, int64_t count) { return take<Vector>(from, count); }
inline void store(Vector x, float *to, int64_t count) { put(x, to, count); }

typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));

// Where there are instructions for the whole register, the compiler would take several and pass through memory.
inline Bits widened(Halves x) {
#if defined(__AVX512F__)
    return (Bits)_mm512_cvtepu16_epi32((__m256i)x);
#else
    return __builtin_convertvector(x, Bits);
#endif
}

inline Halves narrowed(Bits x) {
#if defined(__AVX512F__)
    return (Halves)_mm512_cvtepi32_epi16((__m512i)x);
#else
    return __builtin_convertvector(x, Halves);
#endif
}

struct Brain {  // bfloat16: the upper half of a float
    uint16_t bits;
};

inline Vector read(const float *from, int64_t count) { return load(from, count); }

inline Vector read(const Brain *from, int64_t count) {
    return (Vector)(widened(take<Halves>(from, count)) << 16);
}

inline void write(Vector x, float *to, int64_t count) { store(x, to, count); }

inline void write(Vector x, Brain *to, int64_t count) {
    const Bits bits = (Bits)x, even = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    put(narrowed(x == x ? even : Bits{} + 0x7fc0u), to, count);
}

inline float total(Vector x) {
    Bits lanes{};
    for (int64_t lane = 0; lane < LANES; ++lane) lanes[lane] = lane;
    for (uint32_t apart = LANES / 2; apart > 0; apart /= 2) x += __builtin_shuffle(x, lanes ^ apart);
    return x[0];
}

inline float greatest(Vector x) {
    Bits lanes{};
    for (int64_t lane = 0; lane < LANES; ++lane) lanes[lane] = lane;
    for (uint32_t apart = LANES / 2; apart > 0; apart /= 2) {
        const Vector other = __builtin_shuffle(x, lanes ^ apart);
        x = x > other ? x : other;
    }
    return x[0];
}

// 2^y for y <= 0, -infinity included, by a minimax polynomial of 2^(y - n) with the nearest integer n; NaN stays.
inline Vector power_of_two(Vector y) {
    const Vector limit = Vector{} - 160.0f;
    y = y < limit ? limit : y;
#if defined(__AVX512F__)
    const Vector n = _mm512_roundscale_ps(y, 0);
#else
    constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, in the lowest bits
    const Vector shifted = y + magic, n = shifted - magic;
#endif
    const Vector x = y - n;
    Vector p = x * 1.53533614e-4f + 1.33988746e-3f;
    p = p * x + 9.61843736e-3f;
    p = p * x + 5.55033247e-2f;
    p = p * x + 2.40226479e-1f;
    p = p * x + 6.93147203e-1f;
    p = p * x + 1.0f;
#if defined(__AVX512F__)
    return _mm512_scalef_ps(p, n);
#else
    const Vector scaled = p * (Vector)(((Bits)shifted + 127u) << 23);
    return n < -126.0f ? Vector{} : scaled;
#endif
}

// 2^(x - highest) in the place of each x of whole vectors; returns their sum.
inline float powers(float *row, int64_t count, float highest) {
    Vector sum{};
    for (int64_t s = 0; s < count; s += LANES) {
        const Vector x = power_of_two(load(row + s, LANES) - highest);
        store(x, row + s, LANES);
        sum += x;
    }
    return total(sum);
}

// 1 / x for normal x with a normal reciprocal: the processor's estimate and one step of Newton's, to about an ulp.
inline Vector reciprocal(Vector x) {
#if defined(__AVX512F__)
    const Vector estimate = _mm512_rcp14_ps(x);
    return estimate * (2.0f - x * estimate);
#else
    return 1.0f / x;
#endif
}

// e^y = scale (1 + rest), for |y| <= 86. The polynomial is that of Cephes' expf.
struct Exponential {
    Vector scale, rest;

    explicit Exponential(Vector y) {
        constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, in the lowest bits
        const Vector shifted = y * 1.44269504088896341f + magic;
        const Vector n = shifted - magic;
        const Vector x = (y - n * 0.693359375f) - n * -2.12194440e-4f;  // log 2 in two parts
        Vector p = x * 1.9875691500e-4f + 1.3981999507e-3f;
        p = p * x + 8.3334519073e-3f;
        p = p * x + 4.1665795894e-2f;
        p = p * x + 1.6666665459e-1f;
        p = p * x + 5.0000001201e-1f;
        rest = p * (x * x) + x;
        scale = (Vector)(((Bits)shifted + 127u) << 23);
    }

    Vector value() const { return scale * rest + scale; }
    Vector minus_one() const { return scale * rest + (scale - 1.0f); }
};

}  // namespace
