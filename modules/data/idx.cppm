// Data sets in the IDX format (LeCun, http://yann.lecun.com/exdb/mnist), raw or gzipped, told apart by their content.
export module qorus.data:idx;
import qorus.std;
import qorus.tensor;
import :dataset;

export namespace qorus::data {

// One IDX file: big-endian, 0 0 type rank, the extents, the elements. u8 stays u8, i32 stays i32, i8 and i16 become
// i32, f32 and f64 become f32. A gzipped file may have several members; sizes are checked before memory is taken, and
// memory never exceeds what the file really holds by more than 64 MiB. Errors, with the file's name: not_found, io,
// corrupt (wrong magic, unknown type, fewer or more bytes than the header announces, broken gzip), unsupported (rank 0
// or above 6), overflow, out_of_memory.
[[nodiscard]] Result<Owned> read_idx(std::string_view path) noexcept;

// Images [n, …] and labels [n]. u8 images stay bytes and are scaled to [0, 1] (x / 255) in batches; other types become
// f32 and are not scaled. Integer labels are classes; f32 labels of any rank are targets of a regression. Errors: as
// read_idx; invalid_size (counts differ, no examples), invalid_argument (a label below 0, labels of rank above 1,
// images of rank 0).
[[nodiscard]] Result<Dataset> idx(std::string_view images_path, std::string_view labels_path) noexcept;

// The four files of MNIST or one of its kind: {train,t10k}-{images-idx3,labels-idx1}-ubyte, raw or with .gz. Images u8
// [n, 28, 28] scaled to [0, 1], ten classes. Errors: as idx; not_found names the file that is missing; corrupt: images
// that are not bytes of rank 3, labels that are not bytes below 10.
[[nodiscard]] Result<Split> mnist(std::string_view folder) noexcept;

}  // namespace qorus::data
