#include "experiments/sweep/gpu_shares.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "core/device.h"

namespace convoy {
namespace {

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, ',');) words.push_back(word);
  return words;
}

}  // namespace

// CUDA reads the list up to the first name that names nothing.
std::vector<std::string> visible_gpus() {
  std::vector<std::string> names;
  if (const char* named = std::getenv("CUDA_VISIBLE_DEVICES")) {
    for (const std::string& word : split_at_commas(named)) {
      if (word.empty() || word == "-1" || word == "NoDevFiles") break;
      names.push_back(word);
    }
    return names;
  }
  for (int i = 0; i < cuda_device_count(); ++i) names.push_back(std::to_string(i));
  return names;
}

GpuShares::GpuShares(const std::vector<std::string>& names) {
  for (const std::string& name : names) gpus_.push_back({name});
}

std::string GpuShares::take(int count) {
  std::string taken;
  std::vector<Gpu*> order;
  for (Gpu& gpu : gpus_) order.push_back(&gpu);
  std::stable_sort(order.begin(), order.end(),
                   [](const Gpu* a, const Gpu* b) { return a->runs < b->runs; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  std::sort(order.begin(), order.end());  // ranks on the GPUs in the machine's order
  for (Gpu* gpu : order) {
    ++gpu->runs;
    taken += (taken.empty() ? "" : ",") + gpu->name;
  }
  return taken;
}

void GpuShares::give_back(const std::string& taken) {
  for (const std::string& name : split_at_commas(taken)) {
    for (Gpu& gpu : gpus_) gpu.runs -= gpu.name == name;
  }
}

}  // namespace convoy
