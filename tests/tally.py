#!/usr/bin/env python3
"""Sum up meson's test logs: each failure and each skip with its reason, then `N passed, N failed[, N skipped]`: tally.py TESTLOG.json..."""
import json
import os
import re
import sys

TAP = re.compile(r"^(not ok|ok)\b\s*\d*\s*-?\s*(.*?)\s*(?:#\s*(SKIP|TODO)\b\s*(.*))?$", re.I)


def cases(entry):
    """(name, outcome, reason) of each subtest of one meson test, or of the test itself where it is not TAP."""
    result, found = entry["result"], []
    for line in (entry.get("stdout") or "").splitlines():
        match = TAP.match(line)
        if match:
            state, name, directive, reason = match.groups()
            outcome = "failed" if state == "not ok" else "skipped" if directive else "passed"
            found.append((f'{entry["name"]}: {name}', outcome, reason or ""))
    if result not in ("OK", "SKIP", "EXPECTEDFAIL") and not any(o == "failed" for _, o, _ in found):
        found.append((entry["name"], "failed", result))
    if not found:
        lines = (entry.get("stdout") or "").strip().splitlines()
        found.append((entry["name"], "skipped" if result == "SKIP" else "passed", lines[-1] if lines else "no reason given"))
    return found


def main(paths):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for path in paths:
        build = path.split(os.sep)[0]
        if not os.path.exists(path):
            print(f"FAILED {build}: no test log at {path}")
            counts["failed"] += 1
            continue
        with open(path, encoding="utf-8") as log:
            for line in log:
                for name, outcome, reason in cases(json.loads(line)):
                    counts[outcome] += 1
                    if outcome != "passed":
                        print(f"{outcome.upper()} {build}/{name}" + (f": {reason}" if reason else ""))
    print(f'{counts["passed"]} passed, {counts["failed"]} failed' + (f', {counts["skipped"]} skipped' if counts["skipped"] else ""))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
