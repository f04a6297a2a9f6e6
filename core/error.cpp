#include "core/error.h"

namespace convoy {
namespace {

thread_local int error_rank = -1;
thread_local std::string current_breadcrumb;

std::string file_name(std::string_view path) {
  const auto slash = path.rfind('/');
  const auto folder = slash == std::string_view::npos ? slash : path.rfind('/', slash - 1);
  return std::string(folder == std::string_view::npos ? path : path.substr(folder + 1));
}

}  // namespace

void set_error_rank(int rank) { error_rank = rank; }

Doing::Doing(std::string what) : outer_length_(current_breadcrumb.size()) {
  if (!current_breadcrumb.empty()) current_breadcrumb += " > ";
  current_breadcrumb += what;
}

Doing::~Doing() { current_breadcrumb.resize(outer_length_); }

std::string Doing::breadcrumb() { return current_breadcrumb; }

void detail::check_failed(std::string_view expression, const std::string& message,
                          std::source_location place) {
  std::ostringstream out;
  out << file_name(place.file_name()) << ':' << place.line() << ": CHECK(" << expression
      << ") failed";
  if (!message.empty()) out << ": " << message;
  if (error_rank >= 0) out << " [rank " << error_rank << ']';
  if (!current_breadcrumb.empty()) out << " [while: " << current_breadcrumb << ']';
  throw Error(out.str());
}

}  // namespace convoy
