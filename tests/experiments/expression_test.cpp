// The arithmetic of a manifest's rules.
#include "experiments/manifest/expression.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace convoy {
namespace {

const std::map<std::string, double> kVariables = {
    {"N", 108e6}, {"D", 2e9}, {"d_model", 384}, {"batch", 4096}};
const std::set<std::string> kNames = {"N", "D", "d_model", "batch"};

double value(const std::string& text) { return evaluate(text, kVariables); }

TEST(Expression, FollowsThePrecedenceOfArithmetic) {
  EXPECT_EQ(value("1+2*3"), 7);
  EXPECT_EQ(value("(1+2)*3"), 9);
  EXPECT_EQ(value("10-3-2"), 5);
  EXPECT_EQ(value("16/4/2"), 2);
  EXPECT_EQ(value("2*3^2"), 18);
}

TEST(Expression, PowersBindToTheRightAndBeforeAMinus) {
  EXPECT_EQ(value("2^3^2"), 512);
  EXPECT_EQ(value("-2^2"), -4);
  EXPECT_EQ(value("2^-1"), 0.5);
  EXPECT_EQ(value("3 - -2"), 5);
}

TEST(Expression, ReadsNumbersAsPeopleWriteThem) {
  EXPECT_EQ(value("108e6"), 108e6);
  EXPECT_EQ(value("1.5E-3"), 1.5e-3);
  EXPECT_EQ(value(".5"), 0.5);
  EXPECT_EQ(value("  7\t"), 7);
}

TEST(Expression, KnowsVariablesAndFunctions) {
  EXPECT_EQ(value("N/batch"), 108e6 / 4096);
  EXPECT_EQ(value("min(D, 1e9)"), 1e9);
  EXPECT_EQ(value("max(1, sqrt(d_model/6))"), 8);
  EXPECT_EQ(value("log(exp(2))"), std::log(std::exp(2.0)));
}

TEST(Expression, TheRuleOfTheSpecificationGivesItsNumber) {
  EXPECT_DOUBLE_EQ(value("0.0047*(N/108e6)^(-1/3)/2"), 0.00235);
}

std::string complaint(const std::string& text) { return problem_of_expression(text, kNames); }

TEST(Expression, MistakesAreNamedWithTheirColumn) {
  EXPECT_EQ(complaint("2*N"), "");
  EXPECT_NE(complaint("2*(N+1").find("column 7: ')' is missing"), std::string::npos);
  EXPECT_NE(complaint("2 $ 3").find("column 3: '$' is not expected here"), std::string::npos);
  EXPECT_NE(complaint("2*").find("column 3: the expression ends"), std::string::npos);
  EXPECT_NE(complaint("2*)").find("column 3: ')' is not a number"), std::string::npos);
  EXPECT_NE(complaint("").find("column 1"), std::string::npos);
  EXPECT_NE(complaint("min(1)").find("min takes 2 values, not 1"), std::string::npos);
  EXPECT_NE(complaint("sqrt 2").find("'(' is missing after sqrt"), std::string::npos);
}

TEST(Expression, AnUnknownNameComesWithTheNearestKnownOne) {
  EXPECT_NE(complaint("1 + d_modle").find("column 5: d_modle is not known; did you mean d_model?"),
            std::string::npos)
      << complaint("1 + d_modle");
}

TEST(Expression, AValueThatIsNotFiniteIsRefused) {
  EXPECT_EQ(complaint("1/(N-1)"), "") << "whether it is finite depends on the values";
  EXPECT_THROW(value("1/(N-108e6)"), Error);
  EXPECT_THROW(value("log(-1)"), Error);
}

}  // namespace
}  // namespace convoy
