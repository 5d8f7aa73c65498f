// Bodies of qorus.nn:any.
module qorus.nn;
import qorus.std;

namespace qorus::nn {

Sequence::Sequence(const Sequence& other) noexcept : status_(other.status_) {
  for (const Part& part : other.parts_) push(part.layer, part.name.view());
}

Sequence& Sequence::push(Any layer, std::string_view name) noexcept {
  Part part{.layer = std::move(layer), .name = {}};
  part.name += name;
  if (status_) status_ = parts_.push(std::move(part));
  return *this;
}

Result<Tensor> Sequence::operator()(const Tensor& x) const noexcept {
  if (!status_) return fail(status_.error());
  Result<Tensor> y = x;
  for (const Part& part : parts_) {
    if (y) y = part.layer(*y);
  }
  return y;
}

void Sequence::describe(Writer& out) const noexcept {
  out.value("kind", k_name);
  out.open("layers", '[');
  for (const Part& part : parts_) {
    out.open({}, '{');
    part.layer.describe(out);
    if (part.name.size) out.value("name", part.name.view());
    out.close('}');
  }
  out.close(']');
}

}  // namespace qorus::nn
