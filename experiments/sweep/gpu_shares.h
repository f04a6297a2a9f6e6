// GpuShares: which GPUs of the machine a run of a local sweep sees. Runs that go side by side are
// spread over the GPUs, each rank on one; where there are more runs than GPUs they share.
#pragma once

#include <string>
#include <vector>

namespace convoy {

// The GPUs that a process started from here sees, as CUDA_VISIBLE_DEVICES would name them.
std::vector<std::string> visible_gpus();

class GpuShares {
 public:
  explicit GpuShares(const std::vector<std::string>& names);

  // `count` GPUs (all, where there are fewer), those with the fewest runs, as a value of
  // CUDA_VISIBLE_DEVICES; empty where there are none.
  std::string take(int count);
  void give_back(const std::string& taken);

 private:
  struct Gpu {
    std::string name;
    int runs = 0;
  };
  std::vector<Gpu> gpus_;
};

}  // namespace convoy
