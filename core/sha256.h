// SHA-256 of bytes that arrive in parts, and of files. Token files and checkpoints carry such sums.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // OpenSSL's digest state; its headers stay in sha256.cpp

namespace convoy {

class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }

  // The sum as 64 lower-case hexadecimal digits. Ends the stream: call it once.
  std::string hex();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* state) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> state_;
};

std::string sha256_of(std::string_view text);
std::string sha256_of_file(const std::string& path);

}  // namespace convoy
