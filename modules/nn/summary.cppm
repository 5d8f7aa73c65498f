// A table of a model's layers: name, kind, output shape, parameters, bytes.
export module qorus.nn:summary;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :chain;
import :model;

export namespace qorus::nn {

struct SummaryRow {
  Text name, kind;
  Shape output;  // with a batch of 1
  std::size_t parameters = 0;
};

class Summary {
 public:
  [[nodiscard]] const List<SummaryRow>& rows() const noexcept { return rows_; }
  // Writes the table as text, lines ending in a newline, into `out` (cut, always terminated) and gives its full length, as snprintf does.
  std::size_t format(std::span<char> out) const noexcept;

  List<SummaryRow> rows_;
  std::size_t parameters = 0, trainable = 0;
};

template <class L>
[[nodiscard]] std::string_view kind_of(const L&) noexcept {
  if constexpr (k_is_named<L>) {
    return "named";
  } else if constexpr (requires { L::k_name; }) {
    return L::k_name;
  } else {
    return "layer";
  }
}

// One row for each step of the model's chain (one in all if it is no chain). Errors: those of the layers, out_of_memory.
template <Layer L>
[[nodiscard]] Result<Summary> summary(const Model<L>& model) noexcept {
  Summary table;
  table.parameters = model.parameter_count();
  table.trainable = model.trainable_count();
  Workspace workspace = planning_workspace();
  auto frame = workspace.frame();
  auto x = frame.input(Tensor(nullptr, model.input_dtype(), Layout::dense(model.input_shape().inserted(0, 1)), {}));
  if (!x) return fail(x.error());
  Status status;
  const auto add = [&](std::size_t index, const auto& layer, const Tensor& y) {
    SummaryRow row{.output = y.shape()};
    if constexpr (k_is_named<std::remove_cvref_t<decltype(layer)>>) {
      row.name += layer.name();
      row.kind += kind_of(layer.layer);
    } else {
      row.name += static_cast<std::int64_t>(index);
      row.kind += kind_of(layer);
    }
    visit(layer,
          [&](std::string_view, const Param& param) { row.parameters += param.bound() ? param.tensor.numel() : 0; });
    if (status) status = table.rows_.push(row);
  };
  Result<Tensor> y;
  if constexpr (k_is_chain<L>) {
    y = model.layers().trace(*x, add);
  } else {
    y = model(*x);
    if (y) add(0, model.layers(), *y);
  }
  if (!y) return fail(y.error());
  if (!status) return fail(status.error());
  return table;
}

}  // namespace qorus::nn
