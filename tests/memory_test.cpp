#include "tests/testing.h"

import qorus.memory;
TEST(Errors, Ok) { EXPECT_EQ(qorus::to_string(qorus::Errc::io), "input/output error"); }
