// Whole files as strings, with errors that name the file.
#pragma once

#include <string>
#include <string_view>

namespace convoy {

std::string read_text_file(const std::string& path);

// Written under a temporary name and renamed: a file of that name is always whole.
void write_text_file(const std::string& path, std::string_view text);

// A name beside `path` for its unfinished version, different in every process.
std::string temporary_name(const std::string& path);

}  // namespace convoy
