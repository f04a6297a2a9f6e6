#include "data/r_data.h"

#include <zlib.h>

#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "data/text_file.h"

namespace convoy {
namespace {

// Takes big-endian numbers and strings from the front of a chunk.
class Reader {
 public:
  Reader(std::string_view bytes, std::string_view path) : bytes_(bytes), path_(path) {}

  bool empty() const { return bytes_.empty(); }

  std::string_view take(std::size_t count) {
    require(count <= bytes_.size(), "it ends early");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }

  // Decompresses what comes next, which says itself where it ends, to `size` bytes.
  std::string inflate(std::size_t size) {
    std::string object(size, '\0');
    uLongf written = size;
    uLong consumed = bytes_.size();
    const int result = uncompress2(reinterpret_cast<Bytef*>(object.data()), &written,
                                   reinterpret_cast<const Bytef*>(bytes_.data()), &consumed);
    require(result == Z_OK && written == size, "a chunk does not decompress");
    take(consumed);
    return object;
  }

  std::uint32_t word() {
    std::uint32_t value = 0;
    for (const char byte : take(4)) value = value << 8 | static_cast<unsigned char>(byte);
    return value;
  }

  void require(bool sound, std::string_view what) const {
    if (!sound) throw Error(concat(path_, " is not an R data base of texts: ", what));
  }

 private:
  std::string_view bytes_;
  std::string_view path_;
};

// R's serialisation, "XDR" form: a header, then each object as flags (the type in the low byte)
// and contents (R Internals, section 1.8).
constexpr std::uint32_t kTypeMask = 0xff, kString = 9, kCharacterVector = 16;
constexpr std::uint32_t kMissing = 0xffffffff;

void skip_header(Reader& reader) {
  reader.require(reader.take(2) == "X\n", "an object is not in XDR form");
  const std::uint32_t version = reader.word();
  reader.require(version == 2 || version == 3, "an unknown serialisation version");
  reader.take(8);                                // the R that wrote it, the oldest that reads it
  if (version == 3) reader.take(reader.word());  // its native encoding
}

std::vector<std::string> character_vector(const std::string& object, std::string_view path) {
  Reader reader(object, path);
  skip_header(reader);
  reader.require((reader.word() & kTypeMask) == kCharacterVector, "an object of another type");
  std::vector<std::string> strings;
  for (std::uint32_t left = reader.word(); left > 0; --left) {
    reader.require((reader.word() & kTypeMask) == kString, "a vector's element is not a string");
    const std::uint32_t length = reader.word();
    strings.emplace_back(length == kMissing ? std::string_view{} : reader.take(length));
  }
  return strings;
}

}  // namespace

std::vector<std::vector<std::string>> read_r_character_vectors(const std::string& path) {
  const std::string file = read_text_file(path);
  Reader reader(file, path);
  std::vector<std::vector<std::string>> vectors;
  while (!reader.empty()) {
    const std::uint32_t size = reader.word();
    vectors.push_back(character_vector(reader.inflate(size), path));
  }
  return vectors;
}

}  // namespace convoy
