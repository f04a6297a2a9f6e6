#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "core/error.h"
#include "data/parallel_for.h"
#include "data/utf8.h"

namespace convoy {

const std::string_view kDefaultExpression =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";

namespace {

template <auto function>
struct Deleter {
  template <class T>
  void operator()(T* pointer) const {
    function(pointer);
  }
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

constexpr std::size_t kJitStackStart = std::size_t{32} << 10;
constexpr std::size_t kJitStackLimit = std::size_t{64} << 20;
constexpr std::size_t kBytesPerTask = std::size_t{1} << 20;

}  // namespace

// Finds piece after piece of one text; one per thread.
class PieceScanner {
 public:
  PieceScanner(const PreTokenizer& owner, std::string_view text,
               const std::vector<ByteRange>& valid)
      : owner_(owner),
        text_(text),
        valid_(valid),
        match_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        stack_(pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr)) {
    // The default limit would refuse megabytes of white space.
    pcre2_set_match_limit(context_.get(), std::numeric_limits<std::uint32_t>::max());
    pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
  }

  // The end of the piece that starts at `begin`.
  std::size_t next(std::size_t begin) {
    const ByteRange range = valid_range(begin);
    if (begin < range.begin) return begin + 1;
    const int found =
        pcre2_match(owner_.code_.get(), reinterpret_cast<PCRE2_SPTR>(text_.data() + range.begin),
                    range.end - range.begin, begin - range.begin,
                    PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match_.get(), context_.get());
    if (found == PCRE2_ERROR_NOMATCH) return range.end;
    if (found < 0)
      throw Error(concat("the expression that cuts text into pieces fails at byte ", begin, ": ",
                         pcre2_message(found), "; simplify ", owner_.expression()));
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match_.get());
    const std::size_t matched = range.begin + bounds[0];
    return matched > begin ? matched : range.begin + bounds[1];
  }

  // The first position at or after `at` where a piece may start: not inside a character.
  std::size_t character_start(std::size_t at) {
    const ByteRange range = valid_range(at);
    while (at > range.begin && at < range.end &&
           (static_cast<unsigned char>(text_[at]) & 0xc0u) == 0x80u)
      ++at;
    return at;
  }

 private:
  // The valid range that holds `at`, or else the next one; an empty one at the end of the text.
  ByteRange valid_range(std::size_t at) const {
    const auto after = std::upper_bound(
        valid_.begin(), valid_.end(), at,
        [](std::size_t position, const ByteRange& range) { return position < range.end; });
    return after == valid_.end() ? ByteRange{text_.size(), text_.size()} : *after;
  }

  const PreTokenizer& owner_;
  std::string_view text_;
  const std::vector<ByteRange>& valid_;
  std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>> match_;
  std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>> context_;
  std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>> stack_;
};

void PreTokenizer::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

PreTokenizer::PreTokenizer(std::string expression) : expression_(std::move(expression)) {
  int error = 0;
  PCRE2_SIZE position = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression_.data()), expression_.size(),
                            PCRE2_UTF | PCRE2_UCP, &error, &position, nullptr));
  if (!code_)
    throw Error(concat("the expression that cuts text into pieces is wrong at character ", position,
                       ": ", pcre2_message(error), ": ", expression_));
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without it pcre2_match interprets, slower
}

std::vector<std::size_t> PreTokenizer::piece_ends(std::string_view text, int threads) const {
  const std::vector<ByteRange> valid = valid_utf8_ranges(text);
  const std::size_t tasks = std::max<std::size_t>(1, text.size() / kBytesPerTask);
  const auto task_begin = [&](std::size_t task) { return text.size() / tasks * task; };

  // Each task starts in the middle of a word, most likely, and finds piece ends from there ...
  std::vector<std::vector<std::size_t>> found(tasks);
  parallel_for(static_cast<std::int64_t>(tasks), threads, [&](std::int64_t index) {
    const auto task = static_cast<std::size_t>(index);
    const std::size_t end = task + 1 == tasks ? text.size() : task_begin(task + 1);
    PieceScanner scanner(*this, text, valid);
    for (std::size_t at = scanner.character_start(task_begin(task)); at < end;)
      found[task].push_back(at = scanner.next(at));
  });

  // ... which hold from the first end that the pieces before it lead to.
  std::vector<std::size_t> ends = std::move(found[0]);
  PieceScanner scanner(*this, text, valid);
  for (std::size_t task = 1; task < tasks; ++task) {
    const auto& candidates = found[task];
    auto agreed = std::lower_bound(candidates.begin(), candidates.end(), ends.back());
    while (agreed != candidates.end() && *agreed != ends.back()) {
      ends.push_back(scanner.next(ends.back()));
      agreed = std::lower_bound(agreed, candidates.end(), ends.back());
    }
    if (agreed != candidates.end()) ends.insert(ends.end(), agreed + 1, candidates.end());
  }
  return ends;
}

}  // namespace convoy
