"""Figures, ratios, verdicts, and docs/benchmarks.md made of them."""
import json
import os
import platform
import re
import statistics
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def median(values):
    return statistics.median(values)


def spread_of(values):
    """The middle half, as a person reads noise."""
    if len(values) < 4:
        return ""
    low, _, high = statistics.quantiles(values, n=4)
    return "%s – %s" % (number(low), number(high))


def number(x):
    if x >= 100:
        return "%.0f" % x
    if x >= 10:
        return "%.1f" % x
    return "%.2f" % x


VERDICTS = {True: "met", False: "**missed**", None: "not judged"}


class Row:
    """One budget of the design: what was measured, and whether it is met."""

    def __init__(self, key, work):
        self.key, self.work = key, work
        self.figures = []   # (what, value, unit, middle half, n)
        self.budgets = []   # (text, measured, unit, met)
        self.remarks = []

    def figure(self, what, values, unit):
        """Notes the median of values (or one value) and returns it."""
        values = list(values) if isinstance(values, (list, tuple)) else [values]
        value = median(values)
        self.figures.append((what, value, unit, spread_of(values), len(values)))
        print("  %-58s %10s %s" % (what, number(value), unit), flush=True)
        return value

    def budget(self, text, measured, met, unit="×"):
        """met None: the machine does not meet the budget's own condition."""
        self.budgets.append((text, measured, unit, met))
        print("  %-58s %10s %s  %s" % (text, number(measured), unit, VERDICTS[met]), flush=True)

    def remark(self, text):
        self.remarks.append(text)

    def table(self, head, lines):
        """A table of its own, of texts."""
        rows = [head, ("---",) * len(head), *lines]
        self.remarks.append("\n".join("| %s |" % " | ".join(cells) for cells in rows))
        for cells in lines:
            print("  %-42s %s" % (cells[0], "  |  ".join(cells[1:])), flush=True)


def first_line(*argv):
    try:
        out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
    except OSError:
        return "absent"
    return out.splitlines()[0].strip() if out else ""


def package(name):
    out = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL).stdout.decode()
    return out or "absent"


def machine(folder):
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*:\s*(.*)", f.read())
    with open("/proc/meminfo") as f:
        mem = int(re.search(r"MemTotal:\s*(\d+)", f.read()).group(1)) // (1 << 20)
    kind = first_line("stat", "-f", "-c", "%T", folder)
    with open("/etc/os-release") as f:
        system = re.search(r'PRETTY_NAME="(.*)"', f.read()).group(1)
    return [
        ("processor", "%s, %d cores" % (model.group(1) if model else platform.machine(),
                                        os.cpu_count())),
        ("memory", "%d GiB" % mem),
        ("system", "%s, Linux %s" % (system, platform.release())),
        ("data folder on", kind),
        ("git", first_line("/usr/bin/git", "--version")),
        ("libgit2, libmicrohttpd, SQLite", "%s, %s, %s" % (
            package("libgit2-1.5"), package("libmicrohttpd12"), package("libsqlite3-0"))),
        ("nginx, fcgiwrap, gitolite", "%s, %s, %s" % (package("nginx"), package("fcgiwrap"),
                                                      package("gitolite3"))),
        ("PostgreSQL", package("postgresql-15")),
        ("compiler", first_line("cc", "--version")),
        ("memfs", "%s, `-Dbuildtype=release`" % open(os.path.join(ROOT, "VERSION")).read().strip()),
    ]


HEAD = """# Benchmarks

Made by `make bench` (`tests/bench/run.py`), which writes this page; nothing on it is typed by hand but
the reasons for budgets that were missed. What is compared runs in one session on one machine, taking
turns round by round, so the ratios mean more than the times. Times are medians; "middle half" is the
range from the first to the third quartile.
"""


def write(path, rows, folder, reasons, elapsed_s, busy):
    out = [HEAD, "## The machine\n", "| | |", "|---|---|"]
    out += ["| %s | %s |" % pair for pair in machine(folder)]
    out += ["| date | %s |" % time.strftime("%Y-%m-%d", time.gmtime()),
            "| whole run | %d min |" % round(elapsed_s / 60),
            "| other work on the machine when it began | load average %.1f |" % busy, ""]
    out += ["## Budgets\n", "| work | budget | measured | |", "|---|---|---|---|"]
    for row in rows:
        out += [budget_line(row, i) for i in range(len(row.budgets))]
    out.append("")
    missed = [r for r in rows if any(b[3] is False for b in r.budgets)]
    if missed:
        out.append("Missed, and why:\n")
        for row in missed:
            out.append("- %s: %s" % (row.work, reasons.get(row.key, "not looked into yet.")))
        out.append("")
    for row in rows:
        out += section(row)
    out.append(AGAIN + "\n")
    out.append("```\nmake bench                                   # all of it, writes this page\n"
               "make bench BENCH_FLAGS='--only push'         # one row, writes nothing\n"
               "make bench BENCH_FLAGS='--only search --update' # one row, puts its section and budgets here\n"
               "make bench-letta                             # one row, puts its section here\n```")
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n")


AGAIN = "## Again"


def budget_line(row, i):
    text, measured, unit, met = row.budgets[i]
    return "| %s | %s | %s %s | %s |" % (row.work, text, number(measured), unit, VERDICTS[met])


def title(row):
    return "## %s" % (row.work[0].upper() + row.work[1:])


def section(row):
    out = [title(row) + "\n"]
    out += [r + "\n" for r in row.remarks]
    if row.figures:
        out += ["| | median | middle half | n |", "|---|---|---|---|"]
    for what, value, unit, middle, n in row.figures:
        out.append("| %s | %s %s | %s | %d |" % (what, number(value), unit, middle, n))
    return out + [""]


def put_budget(page, row, line):
    """The line of one budget in the place of the one before, or at the end of that table."""
    text = "\n| %s | %s |" % (row.work, row.budgets[line][0])
    start = page.find(text)
    if start < 0:
        start = end = page.index("\n\n", page.index("\n|---|---|---|---|\n"))
    else:
        end = page.index("\n", start + 1)
    return page[:start] + "\n" + budget_line(row, line) + page[end:]


def update(path, rows, busy):
    """Puts these rows' sections and budgets, measured in a run of their own, in the place of theirs or at the end."""
    with open(path) as f:
        page = f.read()
    for row in rows:
        assert all(b[3] is not False for b in row.budgets), "a missed budget needs a run of all, which tells why"
        for line in range(len(row.budgets)):
            page = put_budget(page, row, line)
        row.remark("Measured by itself on %s; load average when it began: %.1f." % (
            time.strftime("%Y-%m-%d", time.gmtime()), busy))
        text = "\n".join(section(row)) + "\n"
        start = page.find(title(row) + "\n")
        if start < 0:
            start = end = page.index(AGAIN + "\n")
        else:
            end = page.index("\n## ", start) + 1
        page = page[:start] + text + page[end:]
    with open(path, "w") as f:
        f.write(page)


def save(path, rows):
    with open(path, "w") as f:
        json.dump([vars(r) for r in rows], f, indent=1)
