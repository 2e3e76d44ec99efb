"""Why a budget is missed, by row; shown in docs/benchmarks.md only while it is."""
REASONS = {
    "read": "a profile of the list shows a third of memfs's time in put_quoted (json.c), which looks at"
            " each byte of the values for what needs an escape, and a tenth in appending the small"
            " pieces of JSON to the buffer; SQLite and the kernel cost the same in both.",
    "fetch": "info/refs is answered on the event thread, but ls-refs, being a POST, goes through the"
             " worker pool: two thread switches and an eventfd a request, more than its work.",
    "agents": "11.6 MiB of the resident memory are pages of 44 shared libraries. libcurl and what only it"
              " brings are 1.0 MiB of them, though a server has no use for it yet; the CA bundle that"
              " libgit2 parses as it starts is another 0.5 MiB of heap.",
}
