// Texts that are sorted into folders, one for each class, as a data set.
export module qorus.tune:text_folder;
import qorus.std;
import qorus.data;

export namespace qorus::tune {

struct TextFolderOptions {
  std::int64_t length = 256;  // bytes of each text that count; shorter ones are filled up
};
// inputs: [n, length] i32, a text's bytes plus 1 and then 0 (257 ids); targets: [n] the class, which is its name's place.
struct LabelledTexts {
  data::Dataset data;
  List<Text> classes;  // the folders' names, sorted
};
// A folder of folders: each of them is a class, each file in it a text, in the order of their names. Names that begin with a dot, and files
// beside the folders, are passed over. Errors, with the path: not_found, io; invalid_size (no class, a class without a text, no length), unsupported (a
// path of more than 399 bytes, a folder in a class), overflow, out_of_memory.
[[nodiscard]] Result<LabelledTexts> text_folder(std::string_view path, const TextFolderOptions& options = {}) noexcept;

}  // namespace qorus::tune
