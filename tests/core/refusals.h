// For tests of what operations refuse: the message of an error, and tables of calls and messages.
#pragma once

#include "tests/core/op_test_tools.h"

namespace convoy::test {

inline std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

struct Refusal {
  const char* what;  // that the message must hold
  std::function<void()> call;
};

inline void expect_refusals(const std::vector<Refusal>& refusals) {
  for (const Refusal& r : refusals) {
    const std::string text = message_of(r.call);
    EXPECT_NE(text.find(r.what), std::string::npos) << "wanted: " << r.what << "\ngot: " << text;
  }
}

inline Tensor on_another_device(const Tensor& t) {
  return {t.data(), t.dtype(), DeviceKind::cuda, t.shape()};
}

}  // namespace convoy::test
