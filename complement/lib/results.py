"""Results as data: reading, comparing, choosing what to run. No process is started here.

A result file has a line `{"Package","Test","Action"}` for each test and subtest, sorted. Results are kept here as a
dictionary from (package, test) to "pass", "fail" or "skip". Names of tests repeat between packages.
"""

import json
import re

ACTIONS = ("pass", "fail", "skip")


def read(text):
    results = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = json.loads(line)
        key, action = (entry["Package"], entry["Test"]), entry["Action"]
        if action not in ACTIONS or key in results:
            raise ValueError(f"line {number}: {line}")
        results[key] = action
    return results


def write(results):
    lines = (
        json.dumps({"Package": package, "Test": test, "Action": action}, separators=(",", ":"), ensure_ascii=False)
        for (package, test), action in sorted(results.items())
    )
    return "".join(f"{line}\n" for line in lines)


def top(test):
    """The test that `test` is, or is part of."""
    return test.split("/", 1)[0]


class Collector:
    """Turns the events of one package's run (as `go tool test2json` prints them) into results."""

    def __init__(self, package):
        self.package = package
        self.results = {}
        self._open = set()

    def add(self, event):
        test, action = event.get("Test"), event.get("Action")
        if test is None:
            return
        if action == "run":
            self._open.add(test)
        elif action in ACTIONS:
            self._open.discard(test)
            self.results[(self.package, test)] = action

    def finish(self):
        """The results. What began and never ended has failed: the whole run died with it."""
        for test in self._open:
            self.results[(self.package, test)] = "fail"
        self._open.clear()
        return self.results


def known_failures(baseline, package):
    """Tests of `package` of which nothing passes: running them can show no regression, and takes longest."""
    tops = {top(test) for (owner, test) in baseline if owner == package}
    hopeful = {top(test) for (owner, test), action in baseline.items() if owner == package and action != "fail"}
    return sorted(tops - hopeful)


def pattern(tests):
    """A Go test pattern that matches exactly these tests (`None` for none)."""
    return "^(" + "|".join(re.escape(test) for test in sorted(tests)) + ")$" if tests else None


def selected(results, packages, skipped):
    """Those of `results` that a run of `packages` without `skipped` (package -> tests) covers."""
    return {
        key: action for key, action in results.items()
        if key[0] in packages and top(key[1]) not in skipped.get(key[0], ())
    }


def regressions(baseline, now):
    """What passed and does not any more; also what is gone or skipped."""
    return sorted(key for key, action in baseline.items() if action == "pass" and now.get(key) != "pass")


def new_passes(baseline, now):
    return sorted(key for key, action in now.items() if action == "pass" and baseline.get(key) != "pass")


def merged(baseline, now, packages, skipped):
    """The result file after a run: what ran is new, what was left out stays as it was."""
    covered = selected(baseline, packages, skipped)
    return {**{key: action for key, action in baseline.items() if key not in covered}, **now}


def count(results, action):
    return sum(1 for value in results.values() if value == action)
