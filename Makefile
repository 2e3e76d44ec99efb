# The commands people use; the build itself is meson's (meson.build says how the rooms hang together).
#
#   make            build build/memfs (what it needs is installed)
#   make run        install what is missing, build, serve on 127.0.0.1:8285
#   make test       install what the tests need, run all of them, end with a count
#   make test-letta the part of it that runs the real Letta: clients and server
#   make bench      measure the budgets, write docs/benchmarks.md
#   make bench-letta the part of it beside a real Letta server, put into docs/benchmarks.md
#   make bench-servers 1 to 4 servers over one PostgreSQL, put into docs/scaling.md
#   make lint       static checks
#   make fuzz       each fuzz target for FUZZ_SECONDS (8)
#   make install    into PREFIX (/usr/local), below DESTDIR if that is set
PREFIX ?= /usr/local
BUILD ?= build
MESON_FLAGS ?= -Dbuildtype=release -Dtests=false

.PHONY: all run test test-letta bench bench-letta bench-servers lint fuzz install uninstall clean
all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@echo "built $(BUILD)/memfs"

$(BUILD)/build.ninja:
	@meson setup $(BUILD) --prefix=$(PREFIX) $(MESON_FLAGS) >/dev/null

run:
	@scripts/deps build
	@$(MAKE) --no-print-directory all
	@exec $(BUILD)/memfs serve $(SERVE_FLAGS)

test:
	@scripts/deps build test
	@/usr/bin/python3 tests/run.py $(TEST_FLAGS)

test-letta:
	@scripts/deps build test
	@/usr/bin/python3 tests/run.py --only letta --only lettaserver

bench:
	@scripts/deps build bench
	@/usr/bin/python3 tests/bench/run.py $(BENCH_FLAGS)

bench-letta:
	@$(MAKE) --no-print-directory bench BENCH_FLAGS='--only letta --update'

bench-servers:
	@scripts/deps build bench
	@/usr/bin/python3 tests/bench/servers.py --update

lint:
	@scripts/deps build lint
	@scripts/lint

fuzz:
	@scripts/deps build test
	@/usr/bin/python3 tests/run.py --only fuzz

install: all
	@meson configure $(BUILD) --prefix=$(PREFIX) >/dev/null
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --quiet
	@echo "installed memfs into $(DESTDIR)$(PREFIX)"

uninstall:
	@ninja -C $(BUILD) uninstall

clean:
	@rm -rf build build-asan build-tsan build-fuzz build-release
