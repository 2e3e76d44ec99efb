"""Why a budget is missed, by row; shown in docs/benchmarks.md only while it is."""
REASONS = {
    "read": "of the list, a third of memfs's time is put_quoted (json.c), which looks at each byte of"
            " the values for what needs an escape, and a tenth appending small pieces of JSON; with eight"
            " bytes at a time the list was measured at over 90 %. Of one block, what memfs adds is the"
            " line in the log (poll and write, behind one lock for both threads), its formatting, and"
            " clearing the request; SQLite and the rest of the kernel's work cost the same in both.",
    "push": "the server takes 4 ms of it (0.1 ms info/refs, the rest nearly all git index-pack); 20 ms are"
            " git's own HTTP client, which starts git-remote-http, send-pack and pack-objects. Where an"
            " fsync costs nothing, that start is all that is compared.",
    "pile": "the 3,000 pushes came within minutes, and packs that were folded stay in the folder for"
            " 330 s, for readers that may still need them; every git child and every fold lists them."
            " With 3,000 of them there a push without git's client took 1.43 × that of a new agent,"
            " with them removed 1.14 to 1.18 ×.",
    "fetch": "info/refs is answered on the event thread, but ls-refs, being a POST, goes through the"
             " worker pool: two thread switches and an eventfd a request, more than its work.",
    "agents": "11.6 MiB of the resident memory are pages of 44 shared libraries. libcurl and what only it"
              " brings are 1.0 MiB of them, though a server has no use for it yet; the CA bundle that"
              " libgit2 parses as it starts is another 0.5 MiB of heap.",
}
