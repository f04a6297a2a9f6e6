#include "experiments/sweep/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace convoy {
namespace {

constexpr int kCannotStart = 127;  // as a shell says it

// In the child: from here to exec only calls that are safe after fork.
[[noreturn]] void become(const ProcessSpec& spec, char* const* arguments, char* const* environment,
                         int log) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  if (spec.inherited >= 0) ::fcntl(spec.inherited, F_SETFD, 0);
  ::execvpe(arguments[0], arguments, environment);
  const char* reason = std::strerror(errno);
  [[maybe_unused]] auto written = ::write(STDERR_FILENO, arguments[0], std::strlen(arguments[0]));
  written = ::write(STDERR_FILENO, ": ", 2);
  written = ::write(STDERR_FILENO, reason, std::strlen(reason));
  written = ::write(STDERR_FILENO, "\n", 1);
  ::_exit(kCannotStart);
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (auto& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& more) {
  std::vector<std::string> words;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string word = *entry;
    if (!more.contains(word.substr(0, word.find('=')))) words.push_back(word);
  }
  for (const auto& [name, value] : more) words.push_back(name + "=" + value);
  return words;
}

}  // namespace

pid_t start_process(const ProcessSpec& spec) {
  std::vector<std::string> command = spec.command;
  std::vector<std::string> environment = merged_environment(spec.environment);
  const std::vector<char*> arguments = pointers(command), variables = pointers(environment);
  const int log = ::open(spec.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (log < 0) throw Error(concat("cannot write ", spec.log.string()));
  const pid_t child = ::fork();
  if (child == 0) become(spec, arguments.data(), variables.data(), log);
  ::close(log);
  if (child < 0) throw Error(concat("cannot start ", spec.command[0], ": ", std::strerror(errno)));
  return child;
}

}  // namespace convoy
