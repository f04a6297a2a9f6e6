// The Austen corpus: the six novels from the Debian package r-cran-janeaustenr, without R. Each
// novel is cut at paragraphs into pieces of 64 KiB or a little more; of all pieces, counted on
// through the novels, the 10th of every 20 is for validation, the others for training.
#pragma once

#include <cstdint>
#include <string>

namespace convoy {

struct AustenReport {
  std::int64_t train_bytes = 0;
  std::int64_t val_bytes = 0;
  std::string train_sha256;
  std::string val_sha256;
};

// `package`: the folder that `dpkg-deb -x` unpacked the package into. Writes austen.train.txt and
// austen.val.txt into the folder `output`, which is made where it is missing.
AustenReport write_austen_corpus(const std::string& package, const std::string& output);

}  // namespace convoy
