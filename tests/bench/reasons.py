"""Why a budget is missed, by row; shown in docs/benchmarks.md only while it is."""
REASONS = {
    "read": "by processor time (perf, release build) one block costs 17.7 µs in memfs and 12.0 µs in the"
            " bare handler. What memfs adds: the line in the log 1.3 µs (its write alone 1.0), the second"
            " statement that reads the tip for the ETag 1.0, JSON with escapes 0.6, parsing and matching"
            " the raw target 0.5, making the request 0.3, the look whether the agent is at hand 0.3, and"
            " the checks of the head. SQLite's locks and the socket calls are in both. A list costs 71"
            " against 67 µs; in requests a second it varies with how the library spreads eight"
            " connections over two event threads, in both programs.",
    "push": "the server takes 4 ms of it (0.1 ms info/refs, the rest nearly all git index-pack); 20 ms are"
            " git's own HTTP client, which starts git-remote-http, send-pack and pack-objects. Where an"
            " fsync costs nothing, that start is all that is compared.",
    "pile": "folds run beside the pushes, and the packs between two folds are listed by every git"
            " child.",
    "fetch": "both requests are answered on the event thread; what is left is the library and the"
             " kernel, and nginx's figure varies with its processes.",
    "agents": "11.6 MiB of the resident memory are pages of 44 shared libraries. libcurl and what only it"
              " brings are 1.0 MiB of them, though a server has no use for it yet; the CA bundle that"
              " libgit2 parses as it starts is another 0.5 MiB of heap.",
}
