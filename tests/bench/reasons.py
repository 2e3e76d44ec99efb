"""Why a budget is missed, by row; shown in docs/benchmarks.md only while it is."""
REASONS = {
    "read": "a profile of the list shows a third of memfs's time in put_quoted (json.c), which looks at"
            " each byte of the values for what needs an escape, and a tenth in appending the small"
            " pieces of JSON to the buffer; SQLite and the kernel cost the same in both.",
    "fetch": "info/refs is answered on the event thread, but ls-refs, being a POST, goes through the"
             " worker pool: two thread switches and an eventfd a request, more than its work.",
    "agents": "the libraries' own pages (libgit2, libcurl, OpenSSL, SQLite) are most of the resident"
              " memory.",
}
