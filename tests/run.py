#!/usr/bin/env python3
"""Runs every test of memfs and ends with one count.

    tests/run.py                 all phases, four parts of them at a time
    tests/run.py --only unit     one phase (repeatable)
    tests/run.py --list

The builds come first; then the parts of the phases are begun in the order of phases(), as lanes come free.
Each part returns its counts; one that cannot run is a failure, never a silence; so is a file of integration tests
of which no part ran one.  A test that needs what this machine lacks says "skipped" with its reason; more skips than
MAX_SKIPPED fail the run.

Four parts on two cores can make a test wait longer than it has patience.  A test whose only fault is that a
state or a process did not come in time (Late of lib/patience.py, or a time limit of Python's) is run once more
when all else has ended, with nothing beside it: what hangs, hangs again, and fails.  It is told of, and more of
them than MAX_LATE fail the run.  Nothing else is ever tried twice.

Environment: FUZZ_SECONDS (8 a target), CRASHES, POWER_CUTS, FLEET_SECONDS, CHAOS_SECONDS, MIXED_SECONDS, SOAK scale the long suites.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as xml

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(ROOT, "build-logs")
FUZZ_SECONDS = int(os.environ.get("FUZZ_SECONDS", "8"))
MAX_SKIPPED = 0
MAX_LATE = 5
N_LANES = 4      # on two cores: many tests wait for clocks and networks

print_lock = threading.Lock()
ran = set()      # modules of which a test ran
late = []        # (test, how to run it again) of all parts; append() needs no lock


class Counts:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        return self


def say(text):
    with print_lock:
        print(text, flush=True)


def run(log_name, argv, env=None, timeout=3600):
    """Runs argv with its output in a log; returns (exit status, text of the log)."""
    path = os.path.join(LOGS, log_name + ".log")
    full_env = dict(os.environ, **(env or {}))
    with open(path, "wb") as log:
        try:
            status = subprocess.run(argv, cwd=ROOT, env=full_env, stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=subprocess.STDOUT, timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            log.write(b"\n*** timed out\n")
            status = 124
    with open(path, "rb") as log:
        return status, log.read().decode("utf-8", "replace")


def show_tail(title, text, lines=60):
    say("---- %s\n%s\n----" % (title, "\n".join(text.splitlines()[-lines:])))


def build(folder, flags, env=None, targets=()):
    """Configures (once) and builds a folder; counts as one test."""
    path = os.path.join(ROOT, folder)
    text = ""
    status = 0
    if not os.path.exists(os.path.join(path, "build.ninja")):
        status, text = run(folder + "-setup", ["meson", "setup", folder, "--werror"] + flags, env)
    if status == 0:
        status, text = run(folder, ["ninja", "-C", folder] + list(targets), env)
    if status != 0:
        show_tail("building " + folder, text)
        return Counts(failed=1)
    return Counts(passed=1)


def homes():
    """
    Where the homes of the integration tests are: in memory, where there is plenty.  They are thousands of small
    files that are made and deleted, which costs processor time on a disk.  What a disk keeps through a power cut is
    the business of tests that bring one (lib/disk.py).
    """
    try:
        room = os.statvfs("/dev/shm")
        with open("/proc/meminfo", encoding="ascii") as f:
            kib = int(re.search(r"MemAvailable: +(\d+)", f.read()).group(1))
    except OSError:
        return {}
    has_room = room.f_bavail * room.f_frsize > 8 << 30 and kib > 12 << 20
    return {"TMPDIR": "/dev/shm"} if has_room and "TMPDIR" not in os.environ else {}


LATE = re.compile(r'(failed on (setup|teardown) with ")?'
                  r"(lib\.patience\.Late|subprocess\.TimeoutExpired|TimeoutError|socket\.timeout)\b")


def late_ones(suite):
    """The ids of those tests that lacked nothing but time, and how many faults the report counts for them."""
    faults = {}
    for case in suite.iter("testcase"):
        told = case.findall("failure") + case.findall("error")
        if told:
            faults.setdefault("%s::%s" % (case.get("file"), case.get("name")), []).extend(told)
    only_late = [test for test, told in faults.items() if all(LATE.match(f.get("message") or "") for f in told)]
    return only_late, sum(len(faults[test]) for test in only_late)


def pytest_once(name, what, binary, extra_env, timeout, beside):
    """→ (the counts, the ids of the late ones, the failures that are theirs); the report is one of the logs."""
    report = os.path.join(LOGS, name + ".xml")
    if os.path.exists(report):
        os.unlink(report)
    env = {"MEMFS_BIN": os.path.join(ROOT, binary), "PYTHONDONTWRITEBYTECODE": "1", **HOMES}
    env.update(extra_env or {})
    status, text = run(name, [*beside, "/usr/bin/python3", "-m", "pytest", "-q", "-rs", "--color=no",
                              "-p", "no:cacheprovider", "--durations=15", "--rootdir", ROOT,
                              "-o", "junit_family=xunit1", "--junitxml", report, *what], env, timeout)
    try:
        suite = xml.parse(report).getroot().find("testsuite")
        ran.update(word for case in suite.iter("testcase") for word in case.get("classname").split("."))
        total, failed, skipped = (int(suite.get(k)) for k in ("tests", "failures", "skipped"))
        failed += int(suite.get("errors"))
        slow, n_slow = late_ones(suite)
    except (OSError, xml.ParseError, AttributeError):
        show_tail(name, text)
        return Counts(failed=1), [], 0
    if status not in (0, 1) or failed or total == 0:
        show_tail(name, text, 150)
    if (status != 0 and failed == 0) or total == 0:
        failed += 1
    for line in text.splitlines():
        if line.startswith(("SKIPPED", "measured:")):
            say("  " + line)
    return Counts(total - failed - skipped, failed, skipped), slow, n_slow


def pytest(name, what, binary, extra_env=None, timeout=3000, beside=()):
    """Late ones are no failures yet: they wait for run_late()."""
    counts, slow, n_slow = pytest_once(name, what, binary, extra_env, timeout, beside)
    for test in slow:
        again = "%s-late-%d" % (name, len(late) + 1)
        late.append((test, lambda t=test, n=again: pytest_once(n, [t], binary, extra_env, timeout, beside)[0]))
    counts.failed -= n_slow
    return counts


def run_late():
    """The late tests of all parts, one after the other; returns their counts."""
    counts = Counts()
    for test, again in late[:MAX_LATE]:
        one = again()
        say("  late beside others, %s alone: %s" % ("fails" if one.failed else "passes", test))
        counts.add(one)
    if len(late) > MAX_LATE:
        say("%d tests were late, %d may be" % (len(late), MAX_LATE))
        counts.failed += len(late) - MAX_LATE
    return counts


HOMES = homes()


# ---- phases

def phase_build():
    counts = build("build-asan", ["-Db_sanitize=address,undefined", "-Db_lundef=false",
                                  "-Dc_args=-fno-sanitize-recover=all -fno-omit-frame-pointer"])
    counts.add(build("build-test", ["-Dbuildtype=release", "-Dtests=false"]))
    return counts


def cmocka_counts(commands, env, log_prefix="unit-"):
    """Each command is one program with its arguments; a corpus replay counts as one test."""
    total = Counts()
    for command in commands:
        name = os.path.basename(command[1] if command[0].endswith("/with-postgres") else command[0])
        status, text = run(log_prefix + name, command, env, 600)
        if name.startswith("replay_"):
            total.add(Counts(passed=1) if status == 0 else Counts(failed=1))
            if status != 0:
                show_tail(name, text)
            continue
        passed = sum(map(int, re.findall(r"\[  PASSED  \] (\d+) test", text)))
        failed = sum(map(int, re.findall(r"\[  FAILED  \] (\d+) test", text)))
        skipped = sum(map(int, re.findall(r"\[  SKIPPED \] (\d+) test", text)))
        if status != 0 and failed == 0:
            failed = 1
        if failed or passed == 0:
            show_tail(name, text)
        total.add(Counts(passed, max(failed, 0 if passed else 1), skipped))
    return total


def unit_commands(folder):
    """meson names the programs that it hands to another one as seen from its own folder."""
    path = os.path.join(ROOT, folder)
    with open(os.path.join(path, "meson-info", "intro-tests.json")) as f:
        commands = [t["cmd"] for t in json.load(f)]
    return sorted([os.path.join(path, word) if os.path.exists(os.path.join(path, word)) else word
                   for word in command] for command in commands)


UNIT_ENV = {
    "MEMFS_VECTORS": os.path.join(ROOT, "tests", "vectors"),
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


def phase_unit():
    return cmocka_counts(unit_commands("build-asan"), UNIT_ENV)


# What runs more than one thread, under ThreadSanitizer.
CONCURRENT = ["test_pool", "test_cache_threads", "test_cache_threads_file", "test_state", "test_state_file",
              "test_home", "test_push", "test_read_only", "test_edit", "test_intake", "test_http", "test_relay", "test_mirror",
              "test_letta"]
CONCURRENT_POSTGRES = ["test_cache_threads_pg", "test_state_pg", "test_pg_db"]

# Of the server, where the mirror's threads meet each other, a reload, a host that is away, and webhooks.
CONCURRENT_MIRROR = ("test_webhooks and not ten_thousand or test_mirror and (F15 or F30 or D1 or L3"
                     " or several_remotes or together or two_servers or rebuild)")


PROGRAMS = ["memfs", "memfs-server", "memfs-hook", "git-remote-memfs"]


def phase_tsan():
    """The concurrent unit tests, what the client does with threads (many memories, the watcher), the mirror, the
    gateway."""
    counts = build("build-tsan", ["-Db_sanitize=thread", "-Db_lundef=false"],
                   targets=["tests/unit/" + name for name in CONCURRENT + CONCURRENT_POSTGRES] + PROGRAMS)
    if counts.failed:
        return counts
    folder = os.path.join(ROOT, "build-tsan/tests/unit")
    commands = [[os.path.join(folder, name)] for name in CONCURRENT]
    commands += [[os.path.join(ROOT, "tests/with-postgres"), os.path.join(folder, name)]
                 for name in CONCURRENT_POSTGRES]
    counts.add(cmocka_counts(commands, UNIT_ENV, "tsan-"))
    env = {"TSAN_OPTIONS": UNIT_ENV["TSAN_OPTIONS"]}
    files = ["tests/integration/test_%s.py" % name for name in ("sync", "watch")]
    counts.add(pytest("tsan-client", files, "build-tsan/memfs", env))
    files = ["tests/integration/test_%s.py" % name for name in ("mirror", "webhooks")]
    counts.add(pytest("tsan-mirror", files + ["-k", CONCURRENT_MIRROR], "build-tsan/memfs", env))
    files = ["tests/integration/test_%s.py" % name for name in ("gateway", "gateway_stream")]
    return counts.add(pytest("tsan-gateway", files, "build-tsan/memfs", env))


def phase_fuzz():
    """Its build is also the one by clang, whose warnings are others than gcc's."""
    corpora = os.path.join(ROOT, "tests", "fuzz", "corpus")
    targets = sorted(os.listdir(corpora))
    counts = build("build-fuzz", ["-Dfuzz=true", "-Db_sanitize=address,undefined", "-Doptimization=1",
                                  "-Db_lundef=false", "-Dc_args=-fsanitize=fuzzer-no-link"],
                   {"CC": "clang"}, ["tests/fuzz/fuzz_" + target for target in targets] + PROGRAMS + ["memfs-postgresql.so"])
    if counts.failed:
        return counts
    for target in targets:
        program = os.path.join(ROOT, "build-fuzz/tests/fuzz/fuzz_" + target)
        grown = os.path.join(LOGS, "corpus-" + target)
        os.makedirs(grown, exist_ok=True)
        corpus = os.path.join(corpora, target)
        status, text = run("fuzz-" + target, [
            program, "-max_total_time=%d" % FUZZ_SECONDS, "-timeout=10", "-rss_limit_mb=2048",
            "-artifact_prefix=" + LOGS + "/crash-" + target + "-", grown, corpus], UNIT_ENV, 900)
        runs = re.search(r"Done (\d+) runs", text)
        say("  fuzz %s: %s runs" % (target, runs.group(1) if runs else "no"))
        if status != 0 or not runs:
            show_tail("fuzz " + target, text)
            counts.add(Counts(failed=1))
        else:
            counts.add(Counts(passed=1))
    return counts


SANITIZED = {"ASAN_OPTIONS": "detect_leaks=1:log_path=stderr",
             "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}

# The integration tests.  The parts of a phase may run beside each other.
SERVER = [["auth", "crash", "durability", "faults"], ["mixed_writers"],
          ["gateway", "gateway_stream", "service", "service_writes", "shared"],
          ["attacks", "deploy", "git_http", "http_front", "main_job", "openapi", "owner", "policy", "rest", "rest_agents",
           "rest_blocks", "rest_rules", "search", "tls", "vectors", "history", "agents_api", "block_writes"]]

# Those of the mirror: remotes, webhooks, fleets.
MIRROR = [["fleet", "hosts", "webhooks"], ["mirror", "mirror_faults", "proving_ground", "rebuild"]]

# Those that bring a PostgreSQL of their own; and what a client sees, which must not depend on the
# database, once more over PostgreSQL.
POSTGRES = [["frozen_database", "postgres", "same_answers"], ["import_letta", "mixed_writers", "tables"],
            ["auth", "git_http", "openapi", "owner", "rest", "rest_agents", "rest_blocks", "rest_rules", "search",
             "vectors", "history", "agents_api", "block_writes", "shared"]]

# Several servers over a PostgreSQL that each test brings, to kill it.
SERVERS = [["servers_chaos"], ["servers", "servers_upkeep"], ["servers_at_odds", "servers_hurt"]]

# Those of the client, and in the end whatever is named nowhere.
CLIENT = [["apply"], ["checkout_crash", "two_way"]]


def test_files(names):
    return ["tests/integration/test_%s.py" % name for name in names]


def integration_modules():
    names = os.listdir(os.path.join(ROOT, "tests", "integration"))
    return {name[:-len(".py")] for name in names if re.fullmatch(r"test_\w+\.py", name)}


def unnamed():
    found = {name[len("test_"):] for name in integration_modules()}
    return sorted(found.difference(*SERVER, *MIRROR, *POSTGRES, *SERVERS, *CLIENT))


def asan_part(phase, number, names, beside=()):
    def part():
        return pytest("%s-%d" % (phase, number), test_files(names) + ["-m", "not lettaserver"],
                      "build-asan/memfs", SANITIZED, beside=beside)
    return part


def asan_parts(phase, parts, beside=()):
    return [asan_part(phase, i + 1, names, beside) for i, names in enumerate(parts)]


def phase_letta():
    status, text = run("letta-install", ["tests/letta/install.sh"], timeout=1200)
    if status != 0:
        show_tail("installing the Letta clients", text)
        return Counts(failed=1)
    return pytest("letta", ["tests/letta"], "build-asan/memfs")


def phase_lettaserver():
    """Whatever is marked so, wherever it is: they share Letta servers, whose start takes long."""
    status, text = run("letta-server-install", ["tests/letta-server/install"], timeout=1800)
    if status != 0:
        show_tail("installing the Letta server", text)
        return Counts(failed=1)
    return pytest("lettaserver", ["tests/integration", "-m", "lettaserver"], "build-asan/memfs", SANITIZED,
                  beside=["tests/with-postgres"])


def phases():
    """(name, its parts), the long parts first: they are begun in this order."""
    return [
        ("unit", [phase_unit]),
        ("servers", asan_parts("servers", SERVERS)),
        ("client", asan_parts("client", CLIENT + [unnamed()])),
        ("mirror", asan_parts("mirror", MIRROR)),
        ("tsan", [phase_tsan]),
        ("lettaserver", [phase_lettaserver]),
        ("letta", [phase_letta]),
        ("fuzz", [phase_fuzz]),
        ("server", asan_parts("server", SERVER)),
        ("postgres", asan_parts("postgres", POSTGRES, beside=["tests/with-postgres"])),
    ]


class Phase:
    """A phase as it runs: told of when its last part has ended."""

    def __init__(self, name, parts):
        self.name, self.n_left, self.counts, self.seconds = name, len(parts), Counts(), 0.0

    def run(self, part, lock):
        began = time.monotonic()
        try:
            counts = part()
        except Exception as problem:  # a broken phase is a failed test, not a lost run
            say("phase %s broke: %r" % (self.name, problem))
            counts = Counts(failed=1)
        with lock:
            self.counts.add(counts)
            self.seconds += time.monotonic() - began
            self.n_left -= 1
            if self.n_left == 0:
                say("%-12s %5d passed %3d failed %3d skipped   %6.1f s" % (
                    self.name, self.counts.passed, self.counts.failed, self.counts.skipped, self.seconds))


def run_all(wanted):
    """Every part of every phase, N_LANES at a time; returns the counts of all."""
    lock, started = threading.Lock(), [Phase(name, parts) for name, parts in wanted]
    waiting = [(phase, part) for phase, (_, parts) in zip(started, wanted) for part in parts]

    def lane():
        while True:
            with lock:
                if not waiting:
                    return
                phase, part = waiting.pop(0)
            phase.run(part, lock)
    lanes = [threading.Thread(target=lane) for _ in range(N_LANES)]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    total = Counts()
    for phase in started:
        total.add(phase.counts)
    return total


def main():
    names = [name for name, _ in phases()]
    options = argparse.ArgumentParser(description="run the tests of memfs")
    options.add_argument("--only", action="append", choices=["build"] + names)
    options.add_argument("--list", action="store_true")
    args = options.parse_args()
    if args.list:
        print("\n".join(["build"] + names))
        return 0
    os.makedirs(LOGS, exist_ok=True)
    total = run_all([("build", [phase_build])])
    if total.failed == 0:
        total.add(run_all([p for p in phases() if not args.only or p[0] in args.only]))
        total.add(run_late())
    for name in sorted(integration_modules() - ran) if total.failed == 0 and not args.only else ():
        say("no test of %s.py ran" % name)
        total.failed += 1
    if total.skipped > MAX_SKIPPED:
        say("%d tests were skipped, %d are allowed" % (total.skipped, MAX_SKIPPED))
        total.failed += 1
    print("memfs: %d passed, %d failed, %d skipped" % (total.passed, total.failed, total.skipped))
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
