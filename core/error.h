// Errors: one exception type, one macro, and a breadcrumb that says what the program was doing.
// A message carries the place, the expression, the values, the rank and the breadcrumb
// ("step 12 > micro-batch 3"). Libraries throw; only `main` catches.
#pragma once

#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace convoy {

// A user's mistake is thrown as Error{message} and printed as it stands; a broken invariant comes
// from CHECK and carries its place in the source.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The rank that error messages name; thread-local because a test may run its ranks as threads.
void set_error_rank(int rank);

// Says what this scope is doing, for the messages of errors thrown inside it.
class Doing {
 public:
  explicit Doing(std::string what);
  ~Doing();
  Doing(const Doing&) = delete;
  Doing& operator=(const Doing&) = delete;

  static std::string breadcrumb();

 private:
  std::size_t outer_length_;
};

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

namespace detail {
[[noreturn]] void check_failed(std::string_view expression, const std::string& message,
                               std::source_location place);
}

}  // namespace convoy

// CHECK(a == b, "a is ", a, ", expected ", b): always on, throws convoy::Error.
#define CHECK(condition, ...)                                                   \
  do {                                                                          \
    if (!(condition))                                                           \
      ::convoy::detail::check_failed(#condition, ::convoy::concat(__VA_ARGS__), \
                                     std::source_location::current());          \
  } while (false)
