#include "tests/testing.h"

import qorus.tensor;
TEST(Shape, Ok) { EXPECT_EQ(qorus::Shape({2, 3}).numel(), 6u); }
