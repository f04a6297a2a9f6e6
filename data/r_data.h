// Reads the data base in which an R package keeps its data sets: a .rdb file is a row of chunks,
// each the big-endian length of an object, then the object, serialised by R and zlib-compressed.
// Only character vectors are understood, which is what a package of texts holds.
#pragma once

#include <string>
#include <vector>

namespace convoy {

// The character vectors of the file, in order; a missing string (NA) is empty.
std::vector<std::vector<std::string>> read_r_character_vectors(const std::string& path);

}  // namespace convoy
