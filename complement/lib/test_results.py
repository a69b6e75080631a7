import unittest

import results


def keyed(**tests):
    return {("csapi", name.replace("__", "/")): action for name, action in tests.items()}


class Results(unittest.TestCase):
    def test_a_file_is_sorted_and_reads_back(self):
        found = {("tests", "TestA"): "fail", ("csapi", "TestB/x y"): "skip", ("csapi", "TestB"): "pass"}
        text = results.write(found)
        self.assertEqual(text.splitlines()[0], '{"Package":"csapi","Test":"TestB","Action":"pass"}')
        self.assertEqual([line.split('"')[7] for line in text.splitlines()], ["TestB", "TestB/x y", "TestA"])
        self.assertEqual(results.read(text), found)

    def test_a_damaged_file_is_refused(self):
        line = '{"Package":"csapi","Test":"TestB","Action":"pass"}\n'
        for text in (line + line, line.replace("pass", "passed"), line + "nonsense\n"):
            with self.assertRaises(ValueError):
                results.read(text)

    def test_a_test_that_never_ends_has_failed(self):
        collector = results.Collector("csapi")
        for action, test in (("start", None), ("run", "TestA"), ("run", "TestA/x"), ("pass", "TestA/x"), ("fail", None)):
            collector.add({"Action": action, **({"Test": test} if test else {})})
        self.assertEqual(collector.finish(), keyed(TestA="fail", TestA__x="pass"))

    def test_only_tests_of_which_nothing_passes_are_left_out(self):
        baseline = keyed(TestA="fail", TestA__x="fail", TestB="fail", TestB__x="pass", TestC="skip")
        baseline["tests", "TestB"] = "fail"
        self.assertEqual(results.known_failures(baseline, "csapi"), ["TestA"])
        self.assertEqual(results.known_failures(baseline, "tests"), ["TestB"])

    def test_a_pattern_matches_whole_names(self):
        self.assertEqual(results.pattern(["TestB", "TestA"]), "^(TestA|TestB)$")
        self.assertIsNone(results.pattern([]))

    def test_what_passed_must_pass(self):
        baseline = keyed(TestA="pass", TestB="pass", TestC="pass", TestD="fail")
        now = keyed(TestA="fail", TestB="skip", TestD="pass", TestE="pass")
        self.assertEqual(results.regressions(baseline, now), sorted(keyed(TestA="", TestB="", TestC="")))
        self.assertEqual(results.new_passes(baseline, now), sorted(keyed(TestD="", TestE="")))

    def test_what_was_left_out_keeps_its_result(self):
        baseline = {**keyed(TestA="fail", TestA__x="fail", TestB="pass", TestGone="pass"), ("tests", "TestA"): "pass"}
        skipped = {"csapi": ["TestA"]}
        expected = results.selected(baseline, ["csapi"], skipped)
        self.assertEqual(expected, keyed(TestB="pass", TestGone="pass"))
        whole = results.merged(baseline, keyed(TestB="fail"), ["csapi"], skipped)
        self.assertEqual(whole, {**keyed(TestA="fail", TestA__x="fail", TestB="fail"), ("tests", "TestA"): "pass"})


if __name__ == "__main__":
    unittest.main()
