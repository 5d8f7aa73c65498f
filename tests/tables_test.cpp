// Texts and tables as data: alphabets, windows, lines, series; CSV with its quotes and gaps, and what makes numbers of it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/test_data.h"
#include "tests/testing.h"

import qorus.data;

using namespace qorus;

namespace {

std::vector<std::int32_t> ids_of(const Tensor& t) { return {t.i32(), t.i32() + t.numel()}; }

}  // namespace

TEST(Characters, WindowsAndLines) {
  const data::Alphabet alphabet("banana");
  EXPECT_EQ(alphabet.size(), 3);
  EXPECT_EQ(alphabet.id('n'), 2);
  EXPECT_EQ(alphabet.id('x'), -1);
  EXPECT_EQ(alphabet.character(1), 'b');
  auto windows = data::windows("banana", alphabet, 3, 2);
  ASSERT_OK(windows);
  EXPECT_EQ(ids_of(windows->inputs()), (std::vector<std::int32_t>{1, 0, 2, 2, 0, 2}));
  EXPECT_EQ(ids_of(windows->targets()), (std::vector<std::int32_t>{0, 2, 0, 0, 2, 0}));
  EXPECT_FAILS(data::windows("ban", alphabet, 3, 1), Errc::invalid_size);
  EXPECT_FAILS(data::windows("bananax", alphabet, 3, 1), Errc::invalid_argument);
  auto lines = data::lines("ab\r\n\nb", data::Alphabet("ab", 1));
  ASSERT_OK(lines);
  EXPECT_EQ(ids_of(lines->inputs()), (std::vector<std::int32_t>{0, 1, 2, 0, 2, 0}));
  EXPECT_EQ(ids_of(lines->targets()), (std::vector<std::int32_t>{1, 2, 0, 2, 0, -100}));
  EXPECT_FAILS(data::lines("\n", alphabet), Errc::invalid_size);
  const std::vector<float> numbers = {1, 2, 3, 4};
  auto series = data::series(numbers, 2);
  ASSERT_OK(series);
  EXPECT_EQ(series->input_shape(), (Shape{2, 1}));
  EXPECT_EQ(*series->targets().to_vector(), (std::vector<float>{3, 4}));
}

TEST(Csv, TypesQuotesAndGaps) {
  auto table =
      data::Table::parse("a,\"b, \"\"c\"\"\",d,e\r\n1,x,TRUE,\r\n,\"two\nlines\",false,2.5e1\r\n-3,x,,\"\"\r\n");
  ASSERT_OK(table);
  ASSERT_EQ(table->rows(), 3u);
  ASSERT_EQ(table->columns().size(), 4u);
  const auto& c = table->columns();
  EXPECT_EQ(c[1].name.view(), "b, \"c\"");
  using data::ColumnKind;
  EXPECT_TRUE(c[0].kind == ColumnKind::number && c[2].kind == ColumnKind::number && c[3].kind == ColumnKind::number);
  EXPECT_EQ(c[1].kind, ColumnKind::category);
  EXPECT_EQ(c[0].numbers[2], -3);
  EXPECT_TRUE(std::isnan(c[0].numbers[1]) && std::isnan(c[3].numbers[0]) && std::isnan(c[3].numbers[2]));
  EXPECT_EQ(c[2].numbers[0], 1);
  EXPECT_EQ(c[3].numbers[1], 25);
  EXPECT_EQ(c[1].categories.size(), 2u);
  EXPECT_EQ(c[1].codes[0], 1);
  EXPECT_EQ(c[1].categories[0].view(), "two\nlines");
  auto padded = data::Table::parse("a,b\n 1,2 \n  -3 ,  \n");  // blanks around numbers
  ASSERT_OK(padded);
  EXPECT_TRUE(padded->columns()[0].kind == ColumnKind::number);
  EXPECT_EQ(padded->columns()[0].numbers[1], -3);
  EXPECT_EQ(padded->columns()[0].numbers[0], 1);
  for (const char* ragged : {"a,b\n1,2\n\n3\n", "a,b\n\"\n\n\",2\n3,4,5\n"}) {
    auto none = data::Table::parse(ragged);
    EXPECT_FAILS(none, Errc::corrupt);
    const std::string message = none.error().message().c_str();
    EXPECT_NE(message.find(ragged[4] == '1' ? "line 4" : "line 5"), message.npos) << message;
  }
  EXPECT_FAILS(data::Table::parse("a,b\n1,\"2\n"), Errc::corrupt);
  EXPECT_FAILS(data::Table::parse("a\n\"1\"2\n"), Errc::corrupt);
  EXPECT_FAILS(data::Table::parse(""), Errc::corrupt);
  EXPECT_FAILS(data::Table::read("/no/such/file"), Errc::not_found);
  EXPECT_FAILS(table->column("z"), Errc::not_found);
}

TEST(Csv, NumbersAreLearnedFromTheTrainingRows) {
  auto table = data::Table::parse("x,kind,y\n1,a,no\n3,b,yes\n,a,no\n100,c,yes\n", {});
  ASSERT_OK(table);
  const std::uint32_t train[] = {0, 1, 2}, test[] = {3};
  auto fit = data::Tabular::fit(*table, train, {.target = "y"});
  ASSERT_OK(fit);
  EXPECT_EQ(fit->features(), 4);  // x, whether it is missing, a, b
  EXPECT_EQ(fit->classes(), 2);
  auto known = fit->apply(*table, train), other = fit->apply(*table, test);
  ASSERT_OK(known);
  ASSERT_OK(other);
  EXPECT_EQ(*known->inputs().to_vector(), (std::vector<float>{-1, 0, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0}));
  EXPECT_EQ(*other->inputs().to_vector(), (std::vector<float>{98, 0, 0, 0}));
  EXPECT_EQ(ids_of(other->targets()), std::vector<std::int32_t>{1});
  EXPECT_FAILS(data::Tabular::fit(*table, train, {.target = "z"}), Errc::not_found);
  EXPECT_FAILS(data::Tabular::fit(*table, train, {.target = "y", .classes = false}), Errc::invalid_argument);
  const std::uint32_t beyond[] = {9};
  EXPECT_FAILS(fit->apply(*table, beyond), Errc::invalid_argument);
  auto parts = data::split_rows(100, 0.7, 0.2, 3);
  ASSERT_OK(parts);
  EXPECT_EQ(parts->train.size() + parts->validation.size() + parts->test.size(), 100u);
  EXPECT_FAILS(data::split_rows(3, 0.9, 0.1, 3), Errc::invalid_argument);
  EXPECT_FAILS(data::Tabular::fit(*table, train, {.target = "y", .drop = {"z"}}), Errc::not_found);
  EXPECT_FAILS(data::Tabular::fit(*table, train, {.target = "y", .drop = {"x", "kind"}}), Errc::invalid_argument);
  EXPECT_FAILS(data::Tabular::fit(*table, {}, {.target = "y"}), Errc::invalid_size);
  auto header = data::Table::parse("x,y\n");
  ASSERT_OK(header);
  EXPECT_EQ(header->rows(), 0u);
  EXPECT_FAILS(data::split_rows(header->rows(), 0.5, 0.2, 1), Errc::invalid_argument);
  // Another table of the same columns: its classes and categories are known by name.
  auto later = data::Table::parse("x,kind,y\n1,d,yes\n1,b,yes\n1,a,maybe\n");
  ASSERT_OK(later);
  auto fitting = fit->apply(*later, std::vector<std::uint32_t>{0, 1});
  ASSERT_OK(fitting);
  EXPECT_EQ(*fitting->inputs().to_vector(), (std::vector<float>{-1, 0, 0, 0, -1, 0, 0, 1}));
  EXPECT_EQ(ids_of(fitting->targets()), (std::vector<std::int32_t>{1, 1}));
  EXPECT_FAILS(fit->apply(*later, std::vector<std::uint32_t>{2}), Errc::invalid_argument);
  auto other_kind = data::Table::parse("x,kind,y\n1,2,yes\n");
  ASSERT_OK(other_kind);
  EXPECT_FAILS(fit->apply(*other_kind, std::vector<std::uint32_t>{0}), Errc::invalid_argument);
}

TEST(Csv, Dates) {
  auto table = data::Table::parse(
      "month,day,time,none\n1949-01,1970-01-01,2000-03-01T12:00:00Z,2001-02-29\n,2000/03/01,2000-03-01 "
      "06:00,2001-02-28\n");
  ASSERT_OK(table);
  const auto& c = table->columns();
  EXPECT_TRUE(c[0].kind == data::ColumnKind::date && !c[0].has_days);
  EXPECT_TRUE(c[1].kind == data::ColumnKind::date && c[1].has_days && !c[1].has_hours);
  EXPECT_TRUE(c[2].kind == data::ColumnKind::date && c[2].has_hours);
  EXPECT_EQ(c[3].kind, data::ColumnKind::category);  // 2001 had no 29th of February
  EXPECT_EQ(c[0].numbers[0], -7670);
  EXPECT_TRUE(std::isnan(c[0].numbers[1]));
  EXPECT_EQ(c[1].numbers[0], 0);
  EXPECT_EQ(c[1].numbers[1], 11017);
  EXPECT_EQ(c[2].numbers[0], 11017.5f);
  EXPECT_EQ(c[2].numbers[1], 11017.25f);
  const std::uint32_t rows[] = {0, 1};
  auto fit = data::Tabular::fit(*table, rows, {.target = "none", .drop = {"day"}});
  ASSERT_OK(fit);
  EXPECT_EQ(fit->features(), 4 + 7);  // month: days, year, gap; time: days, year, week, day
  auto made = fit->apply(*table, rows);
  ASSERT_OK(made);
  const std::vector<float> x = *made->inputs().to_vector();
  const double turn = 2 * 3.14159265358979 * -7670 / 365.2425;
  EXPECT_NEAR(x[1], std::sin(turn), 1e-6);
  EXPECT_NEAR(x[2], std::cos(turn), 1e-6);
  EXPECT_EQ(x[3], 0);
  EXPECT_EQ((std::vector<float>{x[11], x[12], x[13], x[14]}), (std::vector<float>{0, 0, 0, 1}));
  EXPECT_NEAR(x[20], 1, 1e-3);  // six in the morning: a quarter of the day
  EXPECT_NEAR(x[21], 0, 1e-3);
}

TEST(Csv, StratifiedParts) {
  std::string text = "rare,n\n";
  for (int i = 0; i < 200; ++i) text += std::string(i % 10 ? "no," : "yes,") + std::to_string(i % 4) + "\n";
  auto table = data::Table::parse(text);
  ASSERT_OK(table);
  auto parts = data::split_rows(*table, "rare", 0.6, 0.2, 5);
  ASSERT_OK(parts);
  const auto count = [&](const List<std::uint32_t>& rows) {
    std::size_t yes = 0;
    for (const auto r : rows) yes += r % 10 == 0;
    return yes;
  };
  EXPECT_EQ(count(parts->train), 12u);
  EXPECT_EQ(count(parts->validation), 4u);
  EXPECT_EQ(count(parts->test), 4u);
  std::set<std::uint32_t> all;
  for (const auto* part : {&parts->train, &parts->validation, &parts->test}) all.insert(part->begin(), part->end());
  EXPECT_EQ(all.size(), 200u);
  auto again = data::split_rows(*table, "rare", 0.6, 0.2, 5), other = data::split_rows(*table, "rare", 0.6, 0.2, 6);
  ASSERT_OK(again);
  ASSERT_OK(other);
  EXPECT_TRUE(std::equal(again->train.begin(), again->train.end(), parts->train.begin()));
  EXPECT_FALSE(std::equal(other->train.begin(), other->train.end(), parts->train.begin()));
  ASSERT_OK(data::split_rows(*table, "n", 0.5, 0.3, 1));
  EXPECT_FAILS(data::split_rows(*table, "z", 0.5, 0.3, 1), Errc::not_found);
  EXPECT_FAILS(data::split_rows(*table, "n", 0.5, 0.5, 1), Errc::invalid_argument);
}

// Whatever the bytes: an error, or columns of one length that numbers can be made of.
TEST(Csv, AnyBytes) {
  const std::string good = "a,\"b,\",c\n1,x,2001-01-01\n,\"y\"\"\n\",2001-02-03T04:05\r\n2e9,,\n";
  const std::string_view pieces[] = {"\"", ",",          "\n",         "\r",   "",    "1e99",
                                     "-",  "0000-00-00", "9999-12-31", "true", "\xff"};
  std::uint32_t state = 1;
  const auto draw = [&](std::size_t below) { return (state = state * 1664525u + 1013904223u) % (below * 256) / 256; };
  for (int i = 0; i < 2000; ++i) {
    std::string text = good;
    for (std::size_t n = draw(6); n > 0; --n)
      text.replace(draw(text.size() + 1), draw(3), pieces[draw(std::size(pieces))]);
    auto table = data::Table::parse(text, {.header = i % 2 == 0});
    if (!table) continue;
    std::vector<std::uint32_t> rows(table->rows());
    for (std::size_t r = 0; r < rows.size(); ++r) rows[r] = static_cast<std::uint32_t>(r);
    for (const data::Column& column : table->columns()) {
      const bool codes = column.kind == data::ColumnKind::category;
      ASSERT_EQ(codes ? column.codes.size() : column.numbers.size(), table->rows()) << text;
      auto fit = data::Tabular::fit(*table, rows, {.target = column.name.view(), .classes = codes});
      if (!fit) continue;
      const auto made = fit->apply(*table, rows);
      if (!made) continue;
      const auto inputs = made->inputs().to_vector();
      ASSERT_OK(inputs);
      for (const float v : *inputs) ASSERT_TRUE(std::isfinite(v)) << text;
    }
  }
  std::string many = "name,n\n";
  for (int i = 0; i < 65537; ++i) many += "x" + std::to_string(i) + ",z\n";
  auto table = data::Table::parse(many);
  ASSERT_OK(table);
  EXPECT_EQ(table->columns()[0].kind, data::ColumnKind::text);
  EXPECT_EQ(table->columns()[1].kind, data::ColumnKind::category);
  EXPECT_FAILS(data::split_rows(*table, "name", 0.5, 0.2, 1), Errc::invalid_argument);
}

TEST(Csv, RealTables) {
  QORUS_NEEDS_DATA("csv");
  auto titanic = data::Table::read(qorus_test::data_path("csv/titanic.csv"));
  ASSERT_OK(titanic);
  EXPECT_EQ(titanic->rows(), 891u);
  EXPECT_EQ(titanic->columns().size(), 15u);
  EXPECT_TRUE((*titanic->column("alone"))->kind == data::ColumnKind::number);
  EXPECT_EQ((*titanic->column("sex"))->categories.size(), 2u);
  auto air = data::Table::read(qorus_test::data_path("csv/airline-passengers.csv"));
  ASSERT_OK(air);
  EXPECT_EQ(air->rows(), 144u);
  EXPECT_EQ((*air->column("Passengers"))->numbers[143], 432);
  EXPECT_EQ((*air->column("Month"))->kind, data::ColumnKind::date);
  auto wine = data::Table::read(qorus_test::data_path("csv/winequality-red.csv"), {.header = false});
  ASSERT_OK(wine);
  EXPECT_EQ(wine->rows(), 1599u);
}

TEST(JsonLines, AreReadAsCsvIs) {
  auto table = data::Table::parse_json_lines(
      "\xEF\xBB\xBF{\"a\": 1, \"b\": \"x, \\\"y\\\"\", \"c\": true}\n\n"
      "  {\"c\":false,\"d\":\"1999-12-31\",\"a\":-2.5e1}\r\n"
      "{\"a\":null,\"b\":\"\",\"d\":\"2000-01-01\"}\n{ }\n{\"b\":\"\\u00e4\\u20ac\\ud83d\\ude00\\n\"}");
  ASSERT_OK(table);
  ASSERT_EQ(table->rows(), 5u);
  const auto& c = table->columns();
  ASSERT_EQ(c.size(), 4u);
  using data::ColumnKind;
  EXPECT_TRUE(c[0].kind == ColumnKind::number && c[1].kind == ColumnKind::category && c[2].kind == ColumnKind::number &&
              c[3].kind == ColumnKind::date);
  EXPECT_EQ(c[0].numbers[1], -25);
  EXPECT_TRUE(std::isnan(c[0].numbers[2]) && std::isnan(c[0].numbers[3]) && std::isnan(c[2].numbers[2]));
  ASSERT_EQ(c[1].categories.size(), 2u);
  EXPECT_EQ(c[1].categories[0].view(), "x, \"y\"");
  EXPECT_EQ(c[1].categories[1].view(), "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\n");
  EXPECT_EQ(c[1].codes[2], -1);
  EXPECT_EQ(c[3].numbers[2] - c[3].numbers[1], 1);
  auto one = data::Table::parse_json_lines("{\"\":3}\n{}\n{\"\":4}");
  ASSERT_OK(one);
  EXPECT_EQ(one->rows(), 3u);
}

TEST(JsonLines, ErrorsNameTheLine) {
  const struct {
    const char* text;
    Errc code;
    const char* says;
  } cases[] = {{"", Errc::corrupt, "nothing in it"},
               {"{}\n{}", Errc::corrupt, "nothing in it"},
               {"{\"a\":1}\n[1]", Errc::corrupt, "line 2"},
               {"{\"a\":1}\n\n{\"a\":{\"b\":1}}", Errc::unsupported, "line 3"},
               {"{\"a\":[1]}", Errc::unsupported, "tables are flat"},
               {"{\"a\":1,\"a\":2}", Errc::corrupt, "a key occurs twice"},
               {"{\"a\":1} x", Errc::corrupt, "something follows"},
               {"{\"a\":1", Errc::corrupt, "missing"},
               {"{\"a\" 1}", Errc::corrupt, "colon"},
               {"{\"a\":01x}", Errc::corrupt, "no JSON"},
               {"{\"a\":nan}", Errc::corrupt, "no JSON"},
               {"{\"a\":}", Errc::corrupt, "no JSON"},
               {"{\"a\":\"\\ud800\"}", Errc::corrupt, "surrogate"},
               {"{\"a\":\"\\x\"}", Errc::corrupt, "escape"},
               {"{\"a\":\"b}", Errc::corrupt, "not closed"},
               {"{a:1}", Errc::corrupt, "a key is a string"}};
  for (const auto& one : cases) {
    EXPECT_FAILS(data::Table::parse_json_lines(one.text), one.code) << one.text;
    EXPECT_FAILS_SAYING(data::Table::parse_json_lines(one.text), one.says) << one.text;
  }
  const std::string good = "{\"a\": -1.5e3, \"b\": \"\\u00e4\\\\\", \"c\": null}\n{\"b\": true, \"d\": \"x\"}\n";
  for (std::size_t at = 0; at < good.size(); ++at) {  // any byte, and a cut anywhere: an error or a table
    for (const char c : {'\0', '"', '{', '}', '\\', ',', '\xff', '9'}) {
      std::string damaged = good;
      damaged[at] = c;
      static_cast<void>(data::Table::parse_json_lines(damaged));
    }
    static_cast<void>(data::Table::parse_json_lines(std::string_view(good).substr(0, at)));
  }
  qorus_test::TemporaryFolder folder;
  EXPECT_FAILS(data::Table::read_json_lines(folder / "none.jsonl"), Errc::not_found);
}

TEST(Tables, FeaturesAreDerived) {
  auto table = data::Table::parse("paid,people\n10,2\n9,3\n,1\n");
  ASSERT_OK(table);
  const auto numbers = [&](const char* name) { return (*table->column(name))->numbers.span(); };
  EXPECT_OK(table->derive("each", [&](std::size_t row) { return numbers("paid")[row] / numbers("people")[row]; }));
  EXPECT_EQ(numbers("each")[0], 5.0f);
  EXPECT_EQ(numbers("each")[1], 3.0f);
  EXPECT_TRUE(std::isnan(numbers("each")[2]));
  EXPECT_FAILS(table->derive("each", [](std::size_t) { return 0; }), Errc::invalid_argument);
  auto tabular = data::Tabular::fit(*table, std::vector<std::uint32_t>{0, 1, 2}, {.target = "people"});
  ASSERT_OK(tabular);
  EXPECT_EQ(tabular->features(), 4);  // paid, each, and whether they are missing
}
