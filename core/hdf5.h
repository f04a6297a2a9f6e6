// Hdf5File: the one wrapper around the HDF5 C library. A file owns its handle; datasets and groups
// are named by path ("blocks.0/weight") and opened for the length of one call, so no other handle
// can outlive its file. The library is not thread-safe: every call takes one process-wide lock, so
// any thread may use any file. Failures are Errors that name the file, the object and HDF5's
// reason.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/dtype.h"

namespace convoy {

// What a dataset holds. HDF5 knows no bf16: it is stored as u16 under the attribute dtype = "bf16".
enum class ElementType : std::uint8_t { f64, f32, bf16, i64, i32, u32, u16, u8 };

ElementType element_type(DType dtype);
std::string_view name_of(ElementType type);
std::size_t size_of(ElementType type);

template <class T>
consteval ElementType element_type_of() {
  if constexpr (std::is_same_v<T, std::int64_t>) return ElementType::i64;
  if constexpr (std::is_same_v<T, std::uint32_t>) return ElementType::u32;
  if constexpr (std::is_same_v<T, std::uint8_t>) return ElementType::u8;
  if constexpr (std::is_same_v<T, double>) return ElementType::f64;
  if constexpr (std::is_same_v<T, float>) return ElementType::f32;
  if constexpr (std::is_same_v<T, BF16>) return ElementType::bf16;
  if constexpr (std::is_same_v<T, std::int32_t>) return ElementType::i32;
  if constexpr (std::is_same_v<T, std::uint16_t>) return ElementType::u16;
}

struct DatasetInfo {
  ElementType type;
  std::vector<std::int64_t> shape;

  std::int64_t elements() const;
  std::int64_t row_elements() const;  // product of all dimensions but the first; 1 for a scalar
};

class Hdf5File {
 public:
  enum class Mode : std::uint8_t {
    read,
    update,  // read and write a file that exists
    create,  // an empty file in place of whatever was there
  };

  Hdf5File(std::string path, Mode mode);
  ~Hdf5File();
  Hdf5File(Hdf5File&& other) noexcept;
  Hdf5File& operator=(Hdf5File&& other) noexcept;

  const std::string& path() const { return path_; }
  void flush();
  void close();  // reports what the destructor would have to swallow; later calls do nothing

  bool exists(const std::string& name) const;
  std::vector<std::string> names(const std::string& group = "/") const;  // in alphabetical order
  DatasetInfo info(const std::string& dataset) const;

  // Makes a dataset of zeros, and the groups its name needs. `chunk_rows` = 0 lays it out
  // contiguously; otherwise it is cut into chunks of so many rows and append_rows can extend it.
  void create_dataset(const std::string& name, ElementType type,
                      std::span<const std::int64_t> shape, std::int64_t chunk_rows = 0);

  // A row is an index of the first dimension with all that it holds. `data` is contiguous and of
  // the dataset's own type: nothing is converted, another type is an Error.
  void write_rows(const std::string& dataset, ElementType type, std::int64_t begin,
                  std::int64_t count, const void* data);
  void append_rows(const std::string& dataset, ElementType type, std::int64_t count,
                   const void* data);
  void read_rows(const std::string& dataset, ElementType type, std::int64_t begin,
                 std::int64_t count, void* data) const;

  // Creates a contiguous dataset and fills it.
  void write(const std::string& name, ElementType type, std::span<const std::int64_t> shape,
             const void* data);
  template <class T>
  void write(const std::string& name, const std::vector<T>& values) {
    const std::int64_t size = std::ssize(values);
    write(name, element_type_of<T>(), {&size, 1}, values.data());
  }
  // Strings, as fixed-length UTF-8 padded with zeros; for tables that others read.
  void write(const std::string& name, const std::vector<std::string>& values);
  std::vector<std::string> read_strings(const std::string& dataset) const;
  template <class T>
  std::vector<T> read(const std::string& dataset) const {
    const DatasetInfo found = info(dataset);
    std::vector<T> values(static_cast<std::size_t>(found.elements()));
    read_rows(dataset, element_type_of<T>(), 0, found.shape.empty() ? 1 : found.shape[0],
              values.data());
    return values;
  }

  // Attributes of a dataset or group ("/" is the file itself); setting one again replaces it.
  void set_attribute(const std::string& object, const std::string& name, std::string_view value);
  void set_attribute(const std::string& object, const std::string& name, std::int64_t value);
  void set_attribute(const std::string& object, const std::string& name, double value);
  bool has_attribute(const std::string& object, const std::string& name) const;
  std::string string_attribute(const std::string& object, const std::string& name) const;
  std::int64_t integer_attribute(const std::string& object, const std::string& name) const;
  double real_attribute(const std::string& object, const std::string& name) const;

  // Byte position of a contiguous dataset's data; none where it is chunked or not yet allocated.
  std::optional<std::int64_t> file_offset(const std::string& dataset) const;

 private:
  std::string path_;
  std::int64_t id_ = -1;  // HDF5's hid_t
};

}  // namespace convoy
