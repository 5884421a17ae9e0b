"""How everything is measured: in turns, for a short time, and the median counts."""

import time
from statistics import median


def in_turns(contestants, rounds, tell):
    """
    Call each of {name: function} once a round. Return {name: {figure: its median}}.

    Each function returns {figure: number, or None where it can't be measured}. Every second
    round goes backwards: what comes first or after whom favours nobody.
    """
    figures = {name: {} for name in contestants}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            for figure, value in contestants[name]().items():
                figures[name].setdefault(figure, []).append(value)
    return {
        name: {figure: median_or_none(values) for figure, values in measured.items()}
        for name, measured in figures.items()
    }


def medians(seen):
    """Return {name: {figure: the median}} of several such dicts, as in_turns() returns them."""
    return {
        name: {figure: median_or_none([each[name][figure] for each in seen]) for figure in figures}
        for name, figures in seen[0].items()
    }


def median_or_none(values):
    """Return the median, or None if one of the values could not be measured."""
    return None if None in values else median(values)


def microseconds(function, seconds):
    """Call `function` for `seconds`, once at least, and return what one call takes on average."""
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() < start + seconds:
        function()
        calls += 1
    return 1e6 * (time.perf_counter() - start) / calls


def cpu_seconds(pids):
    """Return the CPU time that these processes have used, or None where nobody tells."""
    try:
        # What POSIX's clock_getcpuclockid() returns on Linux. Python doesn't have it, and
        # /proc counts in hundredths of a second.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)
    except (AttributeError, OSError):
        return None


def ratio(value, to):
    """Return `value` / `to`, or None where one of them was not measured."""
    return value / to if value is not None and to else None
