#include "launch/files.h"

#include <fstream>
#include <sstream>

#include "core/error.h"

namespace convoy {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error("cannot read " + path.string());
  return text.str();
}

void replace_text(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path temporary = path.string() + ".partial";
  {
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file << text;
    file.flush();
    if (!file) throw Error("cannot write " + temporary.string());
  }
  std::filesystem::rename(temporary, path);
}

}  // namespace convoy
