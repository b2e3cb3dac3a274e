"""Counts what is asserted, and says the sums that `make test` reads."""

import tools

asserts = 0


def pytest_assertion_pass(item, lineno, orig, expl):
    global asserts
    asserts += 1


def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    passed, failed = len(stats.get("passed", [])), len(stats.get("failed", [])) + len(stats.get("error", []))
    for reason in sorted({report.longrepr[2].removeprefix("Skipped: ") for report in stats.get("skipped", [])}):
        terminalreporter.write_line(f"skipped: chart: {reason}")
    terminalreporter.write_line(f"test result: chart. {passed} passed; {failed} failed; 0 ignored")
    terminalreporter.write_line(f"helm: {tools.counted['renders']} renders, {tools.counted['objects']} objects, {asserts} asserts")
