"""One line of measured counts a suite, printed at the end of the run."""

_suites = {}


def count(suite, **numbers):
    """Adds to the suite's counts; texts replace."""
    line = _suites.setdefault(suite, {})
    for key, value in numbers.items():
        if isinstance(value, (int, float)) and isinstance(line.get(key, 0), (int, float)):
            line[key] = line.get(key, 0) + value
        else:
            line[key] = value


def most(suite, **numbers):
    """Keeps the largest."""
    line = _suites.setdefault(suite, {})
    for key, value in numbers.items():
        line[key] = max(line.get(key, value), value)


def lines():
    def show(value):
        return f"{value:.1f}" if isinstance(value, float) else str(value)
    return [f"{suite}: " + " ".join(f"{k}={show(v)}" for k, v in counts.items())
            for suite, counts in sorted(_suites.items())]
