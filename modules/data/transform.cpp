// Bodies of qorus.data:transform.
module qorus.data;
import qorus.std;

namespace qorus::data {
namespace {

// Element j of an input as the model would see it.
float decoded(const Tensor& input, std::size_t j, const Encoding& encoding) noexcept {
  const float raw = input.dtype() == DType::u8 ? static_cast<float>(input.u8()[j]) : input.f32()[j];
  return raw * encoding.scale + encoding.shift;
}

// Runs f(feature, value) over all numbers of all examples.
template <class F>
Status each_number(const Examples& examples, F&& f) noexcept {
  Batches batches(examples.clone(), 64, {});
  for (const auto& [x, y] : batches) {
    const std::size_t width = batches.input_shape().numel();
    if (!x.check(DType::f32, "standardize")) break;  // status() says why
    for (std::size_t i = 0; i < x.numel(); ++i) f(i % width, static_cast<double>(x.f32()[i]));
  }
  return batches.status();
}

}  // namespace

Result<Standardizer> Standardizer::fit(const Examples& examples, Per per) noexcept {
  if (auto ok = examples.status(); !ok) return fail(ok.error());
  const Shape shape = examples.input_shape();
  if (shape.numel() == 0) return fail(Errc::invalid_size, "standardize", "examples without features", shape.dims());
  if (const auto first = examples.example(0); !first || first->input.dtype() == DType::i32) {
    if (!first) return fail(first.error());
    return fail(Errc::invalid_dtype, "standardize", "inputs are f32 or u8", shape.dims());
  }
  const std::size_t features = per == Per::set ? 1 : shape.numel();
  List<double> mean, square;
  if (auto ok = mean.resize(features); !ok) return fail(ok.error());
  if (auto ok = square.resize(features); !ok) return fail(ok.error());
  const std::size_t each = per == Per::set ? shape.numel() : 1;  // numbers of one example that share a mean
  const double count = static_cast<double>(examples.size()) * static_cast<double>(each);
  if (auto ok = each_number(examples, [&](std::size_t j, double x) { mean[features == 1 ? 0 : j] += x; }); !ok)
    return fail(ok.error());
  for (double& m : mean) m /= count;
  const auto add_square = [&](std::size_t j, double x) {
    const std::size_t f = features == 1 ? 0 : j;
    square[f] += (x - mean[f]) * (x - mean[f]);
  };
  if (auto ok = each_number(examples, add_square); !ok) return fail(ok.error());
  Standardizer made;
  if (auto ok = made.mean_.resize(features); !ok) return fail(ok.error());
  if (auto ok = made.deviation_.resize(features); !ok) return fail(ok.error());
  for (std::size_t f = 0; f < features; ++f) {
    made.mean_[f] = static_cast<float>(mean[f]);
    const auto deviation = static_cast<float>(std::sqrt(square[f] / count));
    made.deviation_[f] = deviation == 0 ? 1.0f : deviation;
    if (!std::isfinite(made.mean_[f]) || !std::isfinite(deviation)) {
      return fail(Errc::invalid_argument, "standardize", "an input is not finite, or too large", shape.dims());
    }
  }
  return made;
}

Result<Standardizer> Standardizer::from(std::span<const float> mean, std::span<const float> deviation) noexcept {
  if (mean.empty() || mean.size() != deviation.size()) {
    return fail(Errc::invalid_size, "standardize", "as many means as deviations, at least one");
  }
  if (!std::all_of(deviation.begin(), deviation.end(), [](float d) { return d > 0 && std::isfinite(d); }) ||
      !std::all_of(mean.begin(), mean.end(), [](float m) { return std::isfinite(m); })) {
    return fail(Errc::invalid_argument, "standardize", "means are finite, deviations finite and above 0");
  }
  Standardizer made;
  if (auto ok = made.mean_.append(mean); !ok) return fail(ok.error());
  if (auto ok = made.deviation_.append(deviation); !ok) return fail(ok.error());
  return made;
}

Status Standardizer::apply(Dataset& dataset) const noexcept {
  const Examples all = dataset.examples();
  if (auto ok = all.status(); !ok) return ok;
  const Shape shape = all.input_shape();
  const std::size_t features = mean_.size(), width = shape.numel();
  if (features != 1 && features != width) {
    return fail(Errc::invalid_size, "standardize", "fitted on another number of features", shape.dims());
  }
  if (dataset.inputs().dtype() == DType::i32)
    return fail(Errc::invalid_dtype, "standardize", "inputs are f32 or u8", shape.dims());
  Encoding encoding = dataset.encoding();
  if (features == 1) {  // (x scale + shift - mean) / deviation is another scale and shift
    encoding.scale /= deviation_[0];
    encoding.shift = (encoding.shift - mean_[0]) / deviation_[0];
    if (!std::isfinite(encoding.scale) || !std::isfinite(encoding.shift)) {
      return fail(Errc::invalid_argument, "standardize", "a deviation is too small", shape.dims());
    }
    auto pieces = std::move(dataset).release();
    auto made = Dataset::create(std::move(pieces.inputs), std::move(pieces.targets), encoding);
    if (!made) return fail(made.error());
    dataset = std::move(*made);
    return {};
  }
  auto fresh = Owned::zeros(dataset.inputs().shape());
  if (!fresh) return fail(fresh.error());
  const Tensor from = dataset.inputs();
  const auto to = fresh->fill<float>();
  for (std::size_t i = 0; i < to.size(); ++i)
    to[i] = (decoded(from, i, encoding) - mean_[i % width]) / deviation_[i % width];
  encoding.scale = 1;
  encoding.shift = 0;
  auto pieces = std::move(dataset).release();
  auto made = Dataset::create(std::move(*fresh), std::move(pieces.targets), encoding);
  if (!made) return fail(made.error());
  dataset = std::move(*made);
  return {};
}

Result<Owned> Standardizer::apply(const Tensor& inputs) const noexcept {
  if (auto ok = inputs.check(DType::f32, "standardize"); !ok) return fail(ok.error());
  const std::size_t features = mean_.size();
  const bool fits = features > 0 && inputs.numel() % features == 0;
  if (!fits)
    return fail(Errc::invalid_size, "standardize", "fitted on another number of features", inputs.shape().dims());
  auto made = keep(inputs);
  if (!made) return fail(made.error());
  const auto values = made->fill<float>();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = (values[i] - mean_[i % features]) / deviation_[i % features];
  return made;
}

Result<Standardizer> standardize(Split& data, Per per) noexcept {
  auto fitted = Standardizer::fit(data.train.examples(), per);
  if (!fitted) return fitted;
  for (Dataset* part : {&data.train, &data.test}) {
    if (auto ok = fitted->apply(*part); !ok) return fail(ok.error());
  }
  return fitted;
}

Result<Owned> one_hot(const Tensor& labels, int classes) noexcept {
  if (auto ok = labels.check(DType::i32, "one_hot"); !ok) return fail(ok.error());
  if (classes < 1) return fail(Errc::invalid_argument, "one_hot", "at least one class", labels.shape().dims());
  const Shape shape = labels.rank() < k_max_rank ? labels.shape().inserted(labels.rank(), classes) : Shape{-1};
  if (!shape.valid())
    return fail(Errc::invalid_size, "one_hot", "the result would have no valid shape", labels.shape().dims());
  const auto dense = keep(labels);
  if (!dense) return fail(dense.error());
  auto made = Owned::zeros(shape);
  if (!made) return fail(made.error());
  const Tensor from = dense->tensor();
  const auto to = made->fill<float>();
  for (std::size_t i = 0; i < from.numel(); ++i) {
    const std::int32_t label = from.i32()[i];
    if (label < 0 || label >= classes)
      return fail(Errc::invalid_argument, "one_hot", "a label is not in [0, classes)", labels.shape().dims());
    to[i * static_cast<std::size_t>(classes) + static_cast<std::size_t>(label)] = 1.0f;
  }
  return made;
}

Result<Dataset> one_hot(Dataset dataset) noexcept {
  auto hot = one_hot(dataset.targets(), dataset.classes());
  if (!hot) return fail(hot.error());
  auto pieces = std::move(dataset).release();
  return Dataset::create(std::move(pieces.inputs), std::move(*hot), pieces.encoding);
}

}  // namespace qorus::data
