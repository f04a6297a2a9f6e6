// Small files that must never be seen half-written.
#pragma once

#include <filesystem>
#include <string>

namespace convoy {

std::string read_text(const std::filesystem::path& path);
// Writes under a temporary name in the same folder, then renames.
void replace_text(const std::filesystem::path& path, const std::string& text);

}  // namespace convoy
