// Vectors of the widest registers this build may use, through the compiler's vector extension, so
// that one source serves AVX-512, AVX2 and plain SSE, float and double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace convoy::cpu {

#if defined(__AVX512F__)
constexpr std::size_t kVectorBytes = 64;
constexpr int kTileRows = 12;  // with kTileVectors: accumulators that fit the register file
#elif defined(__AVX__)
constexpr std::size_t kVectorBytes = 32;
constexpr int kTileRows = 6;
#else
constexpr std::size_t kVectorBytes = 16;
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 2;

template <class T, std::size_t Bytes = kVectorBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr int kLanes = static_cast<int>(kVectorBytes / sizeof(T));

template <class T>
inline Vec<T> load(const T* source) {
  Vec<T> v;
  std::memcpy(&v, source, sizeof(v));
  return v;
}

template <class T>
inline void store(T* target, Vec<T> v) {
  std::memcpy(target, &v, sizeof(v));
}

// The first `count` lanes; the rest of the vector is 0, the rest of the memory untouched.
template <class T>
inline Vec<T> load_part(const T* source, std::int64_t count) {
  if (count >= kLanes<T>) return load(source);
  Vec<T> v{};
  for (std::int64_t i = 0; i < count; ++i) v[i] = source[i];
  return v;
}

template <class T>
inline void store_part(T* target, Vec<T> v, std::int64_t count) {
  if (count >= kLanes<T>) return store(target, v);
  for (std::int64_t i = 0; i < count; ++i) target[i] = v[i];
}

// load_part where a whole vector is known to be there (Whole), without the test.
template <bool Whole, class T>
inline Vec<T> load_some(const T* source, std::int64_t count) {
  if constexpr (Whole) return load(source);
  return load_part(source, count);
}

template <bool Whole, class T>
inline void store_some(T* target, Vec<T> v, std::int64_t count) {
  if constexpr (Whole) return store(target, v);
  store_part(target, v, count);
}

template <class T, std::size_t Bytes = kVectorBytes>
inline typename VectorOf<T, Bytes>::type larger(typename VectorOf<T, Bytes>::type a,
                                                typename VectorOf<T, Bytes>::type b) {
  return a < b ? b : a;
}

namespace detail {

// Folds the lanes by halves until one is left: the order depends on the vector's length alone.
template <class T, std::size_t Bytes, class Combine>
[[gnu::always_inline]] inline T fold_lanes(typename VectorOf<T, Bytes>::type v, Combine combine) {
  if constexpr (Bytes == sizeof(T) * 2) {
    return combine.scalar(v[0], v[1]);
  } else {
    typename VectorOf<T, Bytes / 2>::type low, high;
    std::memcpy(&low, &v, Bytes / 2);
    std::memcpy(&high, reinterpret_cast<const std::byte*>(&v) + Bytes / 2, Bytes / 2);
    return fold_lanes<T, Bytes / 2>(combine.template vector<T, Bytes / 2>(low, high), combine);
  }
}

struct Add {
  template <class T>
  static T scalar(T a, T b) {
    return a + b;
  }
  template <class T, std::size_t Bytes>
  static auto vector(typename VectorOf<T, Bytes>::type a, typename VectorOf<T, Bytes>::type b) {
    return a + b;
  }
};

struct Larger {
  template <class T>
  static T scalar(T a, T b) {
    return a < b ? b : a;
  }
  template <class T, std::size_t Bytes>
  static auto vector(typename VectorOf<T, Bytes>::type a, typename VectorOf<T, Bytes>::type b) {
    return larger<T, Bytes>(a, b);
  }
};

}  // namespace detail

template <class T>
inline T sum_lanes(Vec<T> v) {
  return detail::fold_lanes<T, kVectorBytes>(v, detail::Add{});
}

template <class T>
inline T max_lanes(Vec<T> v) {
  return detail::fold_lanes<T, kVectorBytes>(v, detail::Larger{});
}

// Dot product of contiguous rows in a fixed order that depends on `count` alone.
template <class T>
inline T dot(const T* a, const T* b, std::int64_t count) {
  Vec<T> sum{};
  Vec<T> sum2{};
  std::int64_t i = 0;
  for (; i + 2 * kLanes<T> <= count; i += 2 * kLanes<T>) {
    sum += load(a + i) * load(b + i);
    sum2 += load(a + i + kLanes<T>) * load(b + i + kLanes<T>);
  }
  for (; i < count; i += kLanes<T>) {
    sum += load_part(a + i, count - i) * load_part(b + i, count - i);
  }
  return sum_lanes<T>(sum + sum2);
}

}  // namespace convoy::cpu
