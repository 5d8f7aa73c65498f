// Bodies of qorus.nn:structure: the kinds that the library knows, and the containers.
module qorus.nn;
import qorus.std;
import qorus.trust;

namespace qorus::nn {
namespace {

// A type of this file's own: what Any makes of it are no symbols for the linker, whose names and sections took more room than the code.
template <class L>
struct Known : L {
  Known() noexcept : L() {}
};
template <class L>
constexpr LayerKind known_kind() noexcept {
  return layer_kind<Known<L>>(L::k_name);
}

constexpr LayerKind k_kinds[] = {
    known_kind<Linear>(),
    known_kind<Embedding>(),
    known_kind<LayerNorm>(),
    known_kind<RmsNorm>(),
    known_kind<Norm>(),
    known_kind<Attention>(),
    known_kind<FeedForward>(),
    known_kind<TransformerBlock>(),
    known_kind<Positions>(),
    known_kind<Sinusoids>(),
    known_kind<Bilinear>(),
    known_kind<Lstm>(),
    known_kind<Gru>(),
    known_kind<Rnn>(),
    known_kind<Experts>(),
    known_kind<LastStep>(),
    known_kind<Softmax>(),
    known_kind<LogSoftmax>(),
    known_kind<Dropout>(),
    known_kind<Flatten>(),
    known_kind<Reshape>(),
    known_kind<Detach>(),
    known_kind<Identity>(),
    known_kind<JoinInputs>(),
    known_kind<Activate<Activation::relu>>(),
    known_kind<Activate<Activation::gelu>>(),
    known_kind<Activate<Activation::gelu_tanh>>(),
    known_kind<Activate<Activation::silu>>(),
    known_kind<Activate<Activation::sigmoid>>(),
    known_kind<Activate<Activation::tanh>>(),
};

// Makes layers of objects. `weight`: how many copies of what is made the repeats around it stand for.
class Maker {
 public:
  Maker(const Description& from, std::span<const LayerKind> more) noexcept : from_(&from), more_(more) {}

  Result<Any> make(const Described& object, double weight) noexcept {
    const Described* kind = from_->find(object, "kind");
    if (!kind || kind->kind != Described::Kind::text) return broken("a layer is an object with a kind");
    if ((made_ += weight) > limits::layers)
      return fail(Errc::unsupported, "from_json", "the structure stands for too many layers");
    auto layer = make_kind(kind->text, object, weight);
    if (!layer) return layer;
    const Described* frozen = from_->find(object, "frozen");
    if (frozen && frozen->kind == Described::Kind::flag && frozen->number != 0) return Any(Frozen<Any>{*layer});
    return layer;
  }

 private:
  static tl::unexpected<Error> broken(const char* why) noexcept { return fail(Errc::corrupt, "from_json", why); }

  // f(layer, object) for each of the object's layers.
  template <class F>
  Status each(const Described& object, std::string_view name, double weight, const F& f) noexcept {
    const Described* list = from_->find(object, name);
    if (!list || list->kind != Described::Kind::list) return broken("a container has a list of layers");
    for (const Described* part = from_->first(*list); part; part = from_->after(*part)) {
      auto layer = make(*part, weight);
      if (!layer) return fail(layer.error());
      if (auto ok = f(std::move(*layer), *part); !ok) return ok;
    }
    return {};
  }
  std::string_view name_of(const Described& object) const noexcept {
    const Described* name = from_->find(object, "name");
    if (!name || name->kind != Described::Kind::text) return {};
    return name->text;
  }
  template <class L>
  static Result<Any> done(const Status& status, L&& layer) noexcept {
    if (!status) return fail(status.error());
    return Any(std::forward<L>(layer));
  }

  Result<Any> make_kind(std::string_view kind, const Described& object, double weight) noexcept {
    if (kind == "chain") {
      Sequence chain;
      auto status = each(object, "layers", weight, [&](Any layer, const Described& part) -> Status {
        chain.add(std::move(layer), name_of(part));
        return {};
      });
      return done(status, std::move(chain));
    }
    constexpr std::string_view joins[] = {"concat", "branch", "gate", "parallel"};
    for (std::size_t i = 0; i < 4; ++i) {
      if (kind == joins[i]) return make_branches(static_cast<Join>(i), object, weight);
    }
    if (kind == "repeat" || kind == "residual") return make_wrapped(kind, object, weight);
    if (kind == "graph") return make_graph(object, weight);
    for (const std::span<const LayerKind> kinds : {more_, std::span<const LayerKind>(k_kinds)}) {
      for (const LayerKind& known : kinds) {
        if (known.name == kind) return known.make(*from_, object);
      }
    }
    if (kind == "transformer") return make_transformer(object, weight);
    return fail(Errc::not_found, "from_json", "no layer of this kind is known", kind);
  }

  Result<Any> make_branches(Join join, const Described& object, double weight) noexcept {
    int axis = 1;
    if (auto ok = read_setting(*from_, object, "axis", axis); !ok) return fail(ok.error());
    Branches all(join, axis);
    auto status = each(object, "layers", weight, [&](Any layer, const Described&) -> Status {
      all.add(std::move(layer));
      return {};
    });
    return done(status, std::move(all));
  }

  Result<double> count_of(const Described& object, double weight) noexcept {
    double count = 1;
    if (auto ok = read_number(*from_, object, "count", count, 0, limits::layers, true); !ok) return fail(ok.error());
    if (count * weight > limits::layers)
      return fail(Errc::unsupported, "from_json", "the structure stands for too many layers");
    return count;
  }

  Result<Any> make_wrapped(std::string_view kind, const Described& object, double weight) noexcept {
    const Described* inside = from_->find(object, kind == "repeat" ? "pattern" : "body");
    if (!inside) return broken("a repeat has a pattern, a residual a body");
    if (kind == "residual") {
      auto body = make(*inside, weight);
      if (!body) return body;
      return Any(Residual<Any>{std::move(*body)});
    }
    auto count = count_of(object, weight);
    if (!count) return fail(count.error());
    auto pattern = make(*inside, weight * *count);
    if (!pattern) return pattern;
    return Any(repeat(static_cast<std::size_t>(*count), std::move(*pattern)));
  }

  Result<Any> make_transformer(const Described& object, double weight) noexcept {
    const Described* blocks = from_->find(object, "blocks");
    const Described* norm = from_->find(object, "norm");
    const Described* pattern = blocks ? from_->find(*blocks, "pattern") : nullptr;
    if (!norm || !pattern) return broken("a transformer has blocks and a norm");
    auto count = count_of(*blocks, weight);
    if (!count) return fail(count.error());
    TransformerBlock block;
    if (auto status = restore(block, *from_, *pattern); !status) return fail(status.error());
    Transformer layer{.blocks = repeat(static_cast<std::size_t>(*count), std::move(block)), .norm = {}};
    Status status = restore(layer.norm, *from_, *norm);
    if (status) status = read_setting(*from_, object, "normed", layer.normed);
    return done(status, std::move(layer));
  }

  Result<Any> make_graph(const Described& object, double weight) noexcept {
    double inputs = 1;
    if (auto ok = read_number(*from_, object, "inputs", inputs, 1, 64, true); !ok) return fail(ok.error());
    Graph graph;
    for (int i = 0; i < static_cast<int>(inputs); ++i) graph.input();
    auto status = each(object, "nodes", weight, [&](Any layer, const Described& part) -> Status {
      List<Graph::Node> edges;
      const Described* list = from_->find(part, "from");
      if (!list || list->kind != Described::Kind::list) return broken("a node of a graph says where it reads from");
      for (const Described* edge = from_->first(*list); edge; edge = from_->after(*edge)) {
        if (edge->kind != Described::Kind::number || !(edge->number >= 0 && edge->number < limits::layers) ||
            edge->number != std::floor(edge->number))
          return broken("a node reads from nodes by number");
        if (auto ok = edges.push({static_cast<std::uint32_t>(edge->number)}); !ok) return ok;
      }
      graph.add(std::move(layer), edges.span(), name_of(part));
      return {};
    });
    return done(status, std::move(graph));
  }

  const Description* from_;
  std::span<const LayerKind> more_;
  double made_ = 0;
};

}  // namespace

Result<Any> from_json(std::string_view text, std::span<const LayerKind> more) noexcept {
  auto description = Description::parse(text);
  if (!description) return fail(description.error());
  return Maker(*description, more).make(description->root(), 1);
}

}  // namespace qorus::nn
