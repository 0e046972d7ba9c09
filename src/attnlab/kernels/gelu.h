// gelu(u) = u Phi(u), with the normal distribution's Phi (Hendrycks and Gimpel 2016).

#pragma once

#include "vectors.h"

namespace {

// Phi(u), and its derivative times u. Phi(-z) = e^(-z^2 / 2) t P(t) / 2 with t = 1 / (1 + 0.3 z / sqrt 2) and P a
// minimax polynomial, which keeps its relative precision where 1 - erf would lose it.
inline Vector normal(Vector u, Vector &slope) {
    const Vector limit = Vector{} + 13.0f;  // beyond it single precision has 0 and 1
    const Vector held = u > limit ? limit : u < -limit ? -limit : u, size = (Vector)((Bits)held & 0x7fffffffu);
    const Vector bell = Exponential(held * held * -0.5f).value();
    const Vector t = reciprocal(1.0f + size * 0.212132034f);
    Vector p = t * -0.1294348f + 0.48510005f;
    p = p * t - 0.51123409f;
    p = p * t + 0.54640407f;
    p = p * t - 0.0936377f;
    p = p * t + 0.21443914f;
    p = p * t + 0.14848166f;
    p = p * t + 0.17069205f;
    p = p * t + 0.16918961f;
    const Vector tail = size < limit ? 0.5f * bell * t * p : Vector{};
    slope = held * bell * 0.398942280f;
    return u > 0.0f ? 1.0f - tail : tail;
}

}  // namespace
