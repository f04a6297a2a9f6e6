#include "data/text_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"

namespace convoy {

std::string read_text_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) throw Error(concat("cannot read ", path));
  std::string text(std::filesystem::file_size(path), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.gcount() != std::ssize(text))
    throw Error(concat("read only ", file.gcount(), " of ", text.size(), " bytes of ", path));
  return text;
}

void write_text_file(const std::string& path, std::string_view text) {
  const std::string temporary = temporary_name(path);
  std::ofstream file(temporary, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!file) {
    std::filesystem::remove(temporary);
    throw Error(concat("cannot write ", path, ": does its folder exist, is the disk full?"));
  }
  std::filesystem::rename(temporary, path);
}

std::string temporary_name(const std::string& path) { return concat(path, ".partial.", getpid()); }

}  // namespace convoy
