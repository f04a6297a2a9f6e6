// Pieces of the page.
#pragma once

#include <string>
#include <vector>

#include "experiments/report_table.h"

namespace convoy {

// <section id=ID> with a heading.
std::string section(const std::string& id, const std::string& heading, const std::string& body);

std::string paragraph(const std::string& text);
std::string quiet(const std::string& text);    // what a number means, in smaller print
std::string missing(const std::string& text);  // why something is not there

std::string bullets(const std::vector<std::string>& lines);  // empty of no lines

// The first column is words, the others numbers. Wide tables scroll inside their own frame.
std::string html_table(const TextTable& table);

}  // namespace convoy
