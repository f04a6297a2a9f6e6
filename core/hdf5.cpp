#include "core/hdf5.h"

#include <hdf5.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <utility>

namespace convoy {
namespace {

using Close = herr_t (*)(hid_t);

// An HDF5 identifier that is closed when its scope ends.
class Handle {
 public:
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  Close close_;
};

// Held during every call of the library; also stops HDF5 from printing errors by itself.
class Library {
 public:
  Library() : lock_(mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

 private:
  static std::mutex& mutex() {
    static std::mutex the_mutex;
    return the_mutex;
  }
  std::scoped_lock<std::mutex> lock_;
};

// The innermost, most telling entry of HDF5's error stack.
std::string reason() {
  std::string text = "no reason given";
  const auto keep_first = [](unsigned depth, const H5E_error2_t* entry, void* result) -> herr_t {
    if (depth == 0 && entry->desc != nullptr) *static_cast<std::string*>(result) = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &text);
  return text;
}

// HDF5 says failure by a negative number, in every type of result.
template <class Result, class... Parts>
Result require(Result result, const Parts&... what) {
  if (result < 0) throw Error(concat(what..., " (HDF5: ", reason(), ")"));
  return result;
}

hid_t memory_type(ElementType type) {
  switch (type) {
    case ElementType::f64: return H5T_NATIVE_DOUBLE;
    case ElementType::f32: return H5T_NATIVE_FLOAT;
    case ElementType::i64: return H5T_NATIVE_INT64;
    case ElementType::i32: return H5T_NATIVE_INT32;
    case ElementType::u32: return H5T_NATIVE_UINT32;
    case ElementType::bf16:
    case ElementType::u16: return H5T_NATIVE_UINT16;
    case ElementType::u8: return H5T_NATIVE_UINT8;
  }
  return -1;
}

bool has_object(hid_t file, const std::string& name) {
  for (std::size_t end = name.find('/', 1);; end = name.find('/', end + 1)) {
    const std::string prefix = name.substr(0, end);
    if (prefix != "/" && H5Lexists(file, prefix.c_str(), H5P_DEFAULT) <= 0) return false;
    if (end == std::string::npos) return true;
  }
}

struct OpenDataset {
  OpenDataset(hid_t file, const std::string& path, const std::string& dataset)
      : where(concat("dataset ", dataset, " of ", path)),
        id(require(H5Dopen2(file, dataset.c_str(), H5P_DEFAULT), "cannot open ", where), H5Dclose) {
    const Handle space(require(H5Dget_space(id), "cannot open ", where), H5Sclose);
    const int dims = require(H5Sget_simple_extent_ndims(space), "cannot read the shape of ", where);
    std::vector<hsize_t> extent(static_cast<std::size_t>(dims));
    H5Sget_simple_extent_dims(space, extent.data(), nullptr);
    info.shape.assign(extent.begin(), extent.end());
    info.type = stored_type();
  }

  ElementType stored_type() const {
    const Handle type(require(H5Dget_type(id), "cannot read the type of ", where), H5Tclose);
    const std::size_t size = H5Tget_size(type);
    const H5T_class_t kind = H5Tget_class(type);
    if (kind == H5T_FLOAT && size == 8) return ElementType::f64;
    if (kind == H5T_FLOAT && size == 4) return ElementType::f32;
    if (kind == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_NONE) {
      if (size == 4) return ElementType::u32;
      if (size == 2) return H5Aexists(id, "dtype") > 0 ? ElementType::bf16 : ElementType::u16;
      if (size == 1) return ElementType::u8;
    }
    if (kind == H5T_INTEGER && size == 8) return ElementType::i64;
    if (kind == H5T_INTEGER && size == 4) return ElementType::i32;
    throw Error(concat(where, " holds elements of ", size, " bytes of a kind that Convoy never ",
                       "writes (HDF5 class ", static_cast<int>(kind), ")"));
  }

  void require_rows(ElementType type, std::int64_t begin, std::int64_t count) const {
    if (type != info.type)
      throw Error(concat(where, " holds ", name_of(info.type), ", not ", name_of(type)));
    const std::int64_t rows = info.shape.empty() ? 0 : info.shape[0];
    if (begin < 0 || count < 0 || begin > rows - count)
      throw Error(
          concat("rows ", begin, " to ", begin + count, " of ", where, ", which has ", rows));
  }

  // Calls transfer(memory space, file space) with the rows [begin, begin + count) selected.
  template <class Transfer>
  void transfer_rows(ElementType type, std::int64_t begin, std::int64_t count,
                     const Transfer& transfer) const {
    require_rows(type, begin, count);
    if (count == 0) return;
    std::vector<hsize_t> start(info.shape.size(), 0);
    std::vector<hsize_t> extent(info.shape.begin(), info.shape.end());
    start[0] = static_cast<hsize_t>(begin);
    extent[0] = static_cast<hsize_t>(count);
    const Handle file_space(require(H5Dget_space(id), "cannot open ", where), H5Sclose);
    H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
    const auto elements = static_cast<hsize_t>(count * info.row_elements());
    const Handle memory_space(H5Screate_simple(1, &elements, nullptr), H5Sclose);
    require(transfer(memory_space, file_space), "cannot transfer rows of ", where);
  }

  void write(ElementType type, std::int64_t begin, std::int64_t count, const void* data) const {
    transfer_rows(type, begin, count, [&](hid_t memory_space, hid_t file_space) {
      return H5Dwrite(id, memory_type(type), memory_space, file_space, H5P_DEFAULT, data);
    });
  }

  void read(ElementType type, std::int64_t begin, std::int64_t count, void* data) const {
    transfer_rows(type, begin, count, [&](hid_t memory_space, hid_t file_space) {
      return H5Dread(id, memory_type(type), memory_space, file_space, H5P_DEFAULT, data);
    });
  }

  std::string where;
  Handle id;
  DatasetInfo info;
};

Handle open_object(hid_t file, const std::string& path, const std::string& object) {
  return {require(H5Oopen(file, object.c_str(), H5P_DEFAULT), "cannot open ", object, " of ", path),
          H5Oclose};
}

void write_attribute(hid_t file, const std::string& path, const std::string& object,
                     const std::string& name, hid_t type, const void* value) {
  const Handle target = open_object(file, path, object);
  if (H5Aexists(target, name.c_str()) > 0) H5Adelete(target, name.c_str());
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(H5Acreate2(target, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose);
  require(attribute < 0 ? -1 : H5Awrite(attribute, type, value), "cannot write attribute ", name,
          " of ", object, " in ", path);
}

struct OpenAttribute {
  OpenAttribute(hid_t file, const std::string& path, const std::string& object,
                const std::string& name, H5T_class_t kind, std::string_view kind_name)
      : owner(open_object(file, path, object)),
        where(concat("attribute ", name, " of ", object, " in ", path)),
        id(require(H5Aopen(owner, name.c_str(), H5P_DEFAULT), "cannot open ", where), H5Aclose),
        type(H5Aget_type(id), H5Tclose) {
    if (H5Tget_class(type) != kind) throw Error(concat(where, " is not ", kind_name));
  }

  void read(hid_t as, void* value) const { require(H5Aread(id, as, value), "cannot read ", where); }

  Handle owner;
  std::string where;
  Handle id;
  Handle type;
};

hid_t open_file(const std::string& path, Hdf5File::Mode mode) {
  if (mode == Hdf5File::Mode::create)
    return require(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                   "cannot create ", path);
  if (!std::filesystem::is_regular_file(path)) throw Error(concat("there is no file ", path));
  if (H5Fis_hdf5(path.c_str()) == 0) throw Error(concat(path, " is not an HDF5 file"));
  const unsigned access = mode == Hdf5File::Mode::read ? H5F_ACC_RDONLY : H5F_ACC_RDWR;
  return require(H5Fopen(path.c_str(), access, H5P_DEFAULT), "cannot open ", path,
                 "; is it complete?");
}

}  // namespace

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::f64: return ElementType::f64;
    case DType::f32: return ElementType::f32;
    case DType::bf16: return ElementType::bf16;
    case DType::i32: return ElementType::i32;
    case DType::u16: return ElementType::u16;
  }
  throw Error("a dtype that HDF5 files do not hold");
}

std::string_view name_of(ElementType type) {
  constexpr std::string_view kNames[] = {"f64", "f32", "bf16", "i64", "i32", "u32", "u16", "u8"};
  return kNames[static_cast<std::size_t>(type)];
}

std::size_t size_of(ElementType type) {
  constexpr std::size_t kSizes[] = {8, 4, 2, 8, 4, 4, 2, 1};
  return kSizes[static_cast<std::size_t>(type)];
}

std::int64_t DatasetInfo::row_elements() const {
  std::int64_t product = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) product *= shape[i];
  return product;
}

std::int64_t DatasetInfo::elements() const { return shape.empty() ? 1 : shape[0] * row_elements(); }

Hdf5File::Hdf5File(std::string path, Mode mode) : path_(std::move(path)) {
  const Library library;
  id_ = open_file(path_, mode);
}

Hdf5File::~Hdf5File() {
  const Library library;
  if (id_ >= 0) H5Fclose(id_);
}

Hdf5File::Hdf5File(Hdf5File&& other) noexcept
    : path_(std::move(other.path_)), id_(std::exchange(other.id_, -1)) {}

Hdf5File& Hdf5File::operator=(Hdf5File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(id_, other.id_);
  return *this;
}

void Hdf5File::flush() {
  const Library library;
  require(H5Fflush(id_, H5F_SCOPE_LOCAL), "cannot flush ", path_);
}

void Hdf5File::close() {
  const Library library;
  if (id_ >= 0) require(H5Fclose(std::exchange(id_, -1)), "cannot close ", path_);
}

bool Hdf5File::exists(const std::string& name) const {
  const Library library;
  return has_object(id_, name);
}

std::vector<std::string> Hdf5File::names(const std::string& group) const {
  const Library library;
  const Handle id(require(H5Gopen2(id_, group.c_str(), H5P_DEFAULT), "cannot open group ", group,
                          " of ", path_),
                  H5Gclose);
  H5G_info_t info;
  require(H5Gget_info(id, &info), "cannot list group ", group, " of ", path_);
  std::vector<std::string> result;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto entry = [&](char* text, std::size_t size) {
      return require(
          H5Lget_name_by_idx(id, ".", H5_INDEX_NAME, H5_ITER_INC, i, text, size, H5P_DEFAULT),
          "cannot list group ", group, " of ", path_);
    };
    std::string name(static_cast<std::size_t>(entry(nullptr, 0)), '\0');
    entry(name.data(), name.size() + 1);
    result.push_back(std::move(name));
  }
  return result;
}

DatasetInfo Hdf5File::info(const std::string& dataset) const {
  const Library library;
  return OpenDataset(id_, path_, dataset).info;
}

void Hdf5File::create_dataset(const std::string& name, ElementType type,
                              std::span<const std::int64_t> shape, std::int64_t chunk_rows) {
  CHECK(!shape.empty(), "dataset ", name, " needs at least one dimension");
  const Library library;
  const std::vector<hsize_t> extent(shape.begin(), shape.end());
  std::vector<hsize_t> most = extent, chunk = extent;
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links, 1);
  if (chunk_rows > 0) {
    most[0] = H5S_UNLIMITED;
    chunk[0] = static_cast<hsize_t>(chunk_rows);
    H5Pset_chunk(layout, static_cast<int>(chunk.size()), chunk.data());
  }
  const Handle space(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), most.data()),
                     H5Sclose);
  const hid_t id =
      H5Dcreate2(id_, name.c_str(), memory_type(type), space, links, layout, H5P_DEFAULT);
  const Handle dataset(require(id, "cannot create dataset ", name, " in ", path_), H5Dclose);
  if (type != ElementType::bf16) return;
  const Handle text(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(text, 4);
  write_attribute(id_, path_, name, "dtype", text, "bf16");
}

void Hdf5File::write_rows(const std::string& dataset, ElementType type, std::int64_t begin,
                          std::int64_t count, const void* data) {
  const Library library;
  OpenDataset(id_, path_, dataset).write(type, begin, count, data);
}

void Hdf5File::append_rows(const std::string& dataset, ElementType type, std::int64_t count,
                           const void* data) {
  const Library library;
  OpenDataset target(id_, path_, dataset);
  target.require_rows(type, 0, 0);
  const std::int64_t begin = target.info.shape[0];
  target.info.shape[0] += count;
  const std::vector<hsize_t> extent(target.info.shape.begin(), target.info.shape.end());
  require(H5Dset_extent(target.id, extent.data()), "cannot extend ", target.where);
  target.write(type, begin, count, data);
}

void Hdf5File::read_rows(const std::string& dataset, ElementType type, std::int64_t begin,
                         std::int64_t count, void* data) const {
  const Library library;
  OpenDataset(id_, path_, dataset).read(type, begin, count, data);
}

void Hdf5File::write(const std::string& name, ElementType type, std::span<const std::int64_t> shape,
                     const void* data) {
  create_dataset(name, type, shape);
  write_rows(name, type, 0, shape[0], data);
}

void Hdf5File::write(const std::string& name, const std::vector<std::string>& values) {
  const Library library;
  std::size_t width = 1;
  for (const auto& value : values) width = std::max(width, value.size());
  std::string padded(width * values.size(), '\0');
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::copy(values[i].begin(), values[i].end(), padded.begin() + static_cast<long>(i * width));
  }
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, width);
  H5Tset_cset(type, H5T_CSET_UTF8);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  const auto count = static_cast<hsize_t>(values.size());
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  const Handle parents(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(parents, 1);
  const Handle dataset(
      require(H5Dcreate2(id_, name.c_str(), type, space, parents, H5P_DEFAULT, H5P_DEFAULT),
              "cannot create ", name, " in ", path_),
      H5Dclose);
  require(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()), "cannot write ",
          name, " in ", path_);
}

std::vector<std::string> Hdf5File::read_strings(const std::string& name) const {
  const Library library;
  const Handle dataset(
      require(H5Dopen2(id_, name.c_str(), H5P_DEFAULT), "cannot open ", name, " of ", path_),
      H5Dclose);
  const Handle type(H5Dget_type(dataset), H5Tclose), space(H5Dget_space(dataset), H5Sclose);
  if (H5Tget_class(type) != H5T_STRING) throw Error(concat(name, " of ", path_, " is no text"));
  const std::size_t width = H5Tget_size(type);
  std::string padded(width * static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)), '\0');
  require(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()), "cannot read ",
          name, " of ", path_);
  std::vector<std::string> values;
  for (std::size_t at = 0; at < padded.size(); at += width) {
    values.push_back(padded.substr(at, width).c_str());
  }
  return values;
}

void Hdf5File::set_attribute(const std::string& object, const std::string& name,
                             std::string_view value) {
  const Library library;
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, std::max<std::size_t>(value.size(), 1));
  const std::string padded(value.empty() ? std::string_view("\0", 1) : value);
  write_attribute(id_, path_, object, name, type, padded.data());
}

void Hdf5File::set_attribute(const std::string& object, const std::string& name,
                             std::int64_t value) {
  const Library library;
  write_attribute(id_, path_, object, name, H5T_NATIVE_INT64, &value);
}

void Hdf5File::set_attribute(const std::string& object, const std::string& name, double value) {
  const Library library;
  write_attribute(id_, path_, object, name, H5T_NATIVE_DOUBLE, &value);
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& name) const {
  const Library library;
  return H5Aexists(open_object(id_, path_, object), name.c_str()) > 0;
}

std::string Hdf5File::string_attribute(const std::string& object, const std::string& name) const {
  const Library library;
  const OpenAttribute attribute(id_, path_, object, name, H5T_STRING, "a string");
  if (H5Tis_variable_str(attribute.type) > 0) throw Error(attribute.where + " has no fixed length");
  std::string value(H5Tget_size(attribute.type), '\0');
  attribute.read(attribute.type, value.data());
  value.resize(value.find_last_not_of('\0') + 1);
  return value;
}

std::int64_t Hdf5File::integer_attribute(const std::string& object, const std::string& name) const {
  const Library library;
  std::int64_t value = 0;
  OpenAttribute(id_, path_, object, name, H5T_INTEGER, "an integer").read(H5T_NATIVE_INT64, &value);
  return value;
}

double Hdf5File::real_attribute(const std::string& object, const std::string& name) const {
  const Library library;
  double value = 0;
  OpenAttribute(id_, path_, object, name, H5T_FLOAT, "a number").read(H5T_NATIVE_DOUBLE, &value);
  return value;
}

std::optional<std::int64_t> Hdf5File::file_offset(const std::string& dataset) const {
  const Library library;
  const OpenDataset source(id_, path_, dataset);
  const haddr_t offset = H5Dget_offset(source.id);
  if (offset == HADDR_UNDEF) return std::nullopt;
  return static_cast<std::int64_t>(offset);
}

}  // namespace convoy
