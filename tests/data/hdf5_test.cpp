#include "core/hdf5.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <thread>

#include "data/text_file.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

using Mode = Hdf5File::Mode;

template <class T>
void expect_round_trip(const std::vector<T>& values) {
  const TemporaryFolder folder;
  Hdf5File(folder / "a.h5", Mode::create).write("group/values", values);
  const Hdf5File file(folder / "a.h5", Mode::read);
  EXPECT_EQ(file.info("group/values").type, element_type_of<T>());
  EXPECT_EQ(file.read<T>("group/values"), values);
}

TEST(Hdf5File, KeepsEveryElementType) {
  expect_round_trip<double>({0.1, -1e300});
  expect_round_trip<float>({0.1f, -1e30f});
  expect_round_trip<std::int64_t>({-1, std::int64_t{1} << 60});
  expect_round_trip<std::int32_t>({-1, 1 << 30});
  expect_round_trip<std::uint32_t>({0, 0xffffffffu});
  expect_round_trip<std::uint16_t>({0, 65535});
  expect_round_trip<std::uint8_t>({0, 255});
  expect_round_trip<std::uint8_t>({});
}

TEST(Hdf5File, KeepsStrings) {
  const TemporaryFolder folder;
  const std::vector<std::string> values{"lowrank", "", "d\xc3\xa9j\xc3\xa0 vu"};
  {
    Hdf5File file(folder / "a.h5", Mode::create);
    file.write("group/values", values);
    file.write("none", std::vector<std::string>());
    file.write("numbers", std::vector<double>{1});
  }
  const Hdf5File file(folder / "a.h5", Mode::read);
  EXPECT_EQ(file.read_strings("group/values"), values);
  EXPECT_TRUE(file.read_strings("none").empty());
  EXPECT_THROW(file.read_strings("numbers"), Error);
}

TEST(Hdf5File, TellsBf16FromU16) {
  const TemporaryFolder folder;
  const std::vector<BF16> values{BF16(1.0f), BF16(-2.5f)};
  Hdf5File(folder / "a.h5", Mode::create).write("values", values);
  const Hdf5File file(folder / "a.h5", Mode::read);
  EXPECT_EQ(file.info("values").type, ElementType::bf16);
  EXPECT_EQ(file.read<BF16>("values")[1].bits, values[1].bits);
  expect_error("holds bf16, not u16", [&] { file.read<std::uint16_t>("values"); });
}

TEST(Hdf5File, ReadsAndWritesRangesOfRows) {
  const TemporaryFolder folder;
  std::vector<float> matrix(5 * 3);  // [5, 3]
  std::iota(matrix.begin(), matrix.end(), 0.0f);
  const std::int64_t shape[] = {5, 3};
  {
    Hdf5File file(folder / "a.h5", Mode::create);
    file.create_dataset("matrix", ElementType::f32, shape);
    file.write_rows("matrix", ElementType::f32, 0, 2, matrix.data());
  }
  Hdf5File file(folder / "a.h5", Mode::update);
  file.write_rows("matrix", ElementType::f32, 2, 3, matrix.data() + 6);
  EXPECT_EQ(file.read<float>("matrix"), matrix);
  std::vector<float> rows(6);
  file.read_rows("matrix", ElementType::f32, 3, 2, rows.data());
  EXPECT_EQ(rows, std::vector<float>(matrix.begin() + 9, matrix.end()));
  expect_error("rows 4 to 6 of dataset matrix",
               [&] { file.read_rows("matrix", ElementType::f32, 4, 2, rows.data()); });
}

TEST(Hdf5File, ExtendsAChunkedDataset) {
  const TemporaryFolder folder;
  Hdf5File file(folder / "a.h5", Mode::create);
  const std::int64_t none = 0;
  file.create_dataset("tokens", ElementType::u16, {&none, 1}, 4);
  const std::vector<std::uint16_t> part{1, 2, 3, 4, 5};
  file.append_rows("tokens", ElementType::u16, 5, part.data());
  file.append_rows("tokens", ElementType::u16, 2, part.data());
  EXPECT_EQ(file.read<std::uint16_t>("tokens"), (std::vector<std::uint16_t>{1, 2, 3, 4, 5, 1, 2}));
  EXPECT_FALSE(file.file_offset("tokens").has_value());
}

TEST(Hdf5File, KeepsAttributesAndReplacesThem) {
  const TemporaryFolder folder;
  Hdf5File file(folder / "a.h5", Mode::create);
  file.write("data", std::vector<float>{1});
  file.set_attribute("/", "text", "first");
  file.set_attribute("/", "text", "zweite, längere");
  file.set_attribute("/", "empty", "");
  file.set_attribute("data", "step", std::int64_t{-7});
  file.set_attribute("data", "rate", 0.25);
  EXPECT_EQ(file.string_attribute("/", "text"), "zweite, längere");
  EXPECT_EQ(file.string_attribute("/", "empty"), "");
  EXPECT_EQ(file.integer_attribute("data", "step"), -7);
  EXPECT_EQ(file.real_attribute("data", "rate"), 0.25);
  EXPECT_FALSE(file.has_attribute("data", "text"));
  expect_error("attribute rate of data", [&] { file.string_attribute("data", "rate"); });
  expect_error("attribute absent of data", [&] { file.real_attribute("data", "absent"); });
}

TEST(Hdf5File, KnowsWhatItHolds) {
  const TemporaryFolder folder;
  Hdf5File file(folder / "a.h5", Mode::create);
  file.write("b/second", std::vector<float>{1});
  file.write("b/first", std::vector<float>{2});
  EXPECT_TRUE(file.exists("b"));
  EXPECT_TRUE(file.exists("b/first"));
  EXPECT_FALSE(file.exists("b/third"));
  EXPECT_FALSE(file.exists("c/first"));
  EXPECT_EQ(file.names("b"), (std::vector<std::string>{"first", "second"}));
}

TEST(Hdf5File, SaysWhereTheBytesOfADatasetLie) {
  const TemporaryFolder folder;
  Hdf5File file(folder / "a.h5", Mode::create);
  file.write("data", std::vector<std::uint8_t>{'c', 'o', 'n', 'v', 'o', 'y'});
  const auto offset = file.file_offset("data");
  ASSERT_TRUE(offset.has_value());
  file.close();
  const std::string bytes = read_text_file(folder / "a.h5");
  EXPECT_EQ(bytes.substr(static_cast<std::size_t>(*offset), 6), "convoy");
}

TEST(Hdf5File, RefusesWhatIsNoHdf5File) {
  const TemporaryFolder folder;
  expect_error("there is no file", [&] { Hdf5File(folder / "absent", Mode::read); });
  write_text_file(folder / "text", "not HDF5, but long enough to hold a superblock ...");
  expect_error("is not an HDF5 file", [&] { Hdf5File(folder / "text", Mode::read); });
  expect_error("cannot create", [&] { Hdf5File(folder / "absent/a.h5", Mode::create); });
}

TEST(Hdf5File, SaysThatATruncatedFileIsIncomplete) {
  const TemporaryFolder folder;
  Hdf5File(folder / "a.h5", Mode::create).write("data", std::vector<double>(1000, 1.0));
  std::filesystem::resize_file(folder / "a.h5", 4000);
  expect_error("truncated file", [&] { Hdf5File(folder / "a.h5", Mode::read); });
}

TEST(Hdf5File, NamesTheMissingDataset) {
  const TemporaryFolder folder;
  Hdf5File file(folder / "a.h5", Mode::create);
  expect_error("cannot open dataset loss of", [&] { file.read<float>("loss"); });
}

TEST(Hdf5File, LetsManyThreadsReadAndWrite) {
  const TemporaryFolder folder;
  Hdf5File shared(folder / "shared.h5", Mode::create);
  shared.write("values", std::vector<std::int32_t>(1000, 3));
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Hdf5File own(folder / concat("own", t), Mode::create);
      for (int i = 0; i < 50; ++i) {
        own.write(concat("values", i), std::vector<std::int32_t>(10, i));
        EXPECT_EQ(shared.read<std::int32_t>("values")[999], 3);
      }
    });
}

}  // namespace
}  // namespace convoy
