"""Why a budget is missed, by row; shown in docs/benchmarks.md only while it is."""
REASONS = {
}
