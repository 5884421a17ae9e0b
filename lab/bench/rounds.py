"""How everything is measured: in turns, for a short time, and the least of the rounds counts."""

import time


def in_turns(contestants, rounds, tell):
    """
    Call each of {name: function} once per round. Return {name: {figure: its least value}}.

    Each function returns {figure: number}. Every second round goes backwards, so that no
    contestant always comes first. Whatever else the machine does only adds to a figure, so the
    least one is the nearest to what the code itself takes.
    """
    figures = {name: {} for name in contestants}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            for figure, value in contestants[name]().items():
                figures[name][figure] = min(value, figures[name].get(figure, value))
    return figures


def microseconds(function, seconds):
    """Call `function` for `seconds`, once at least, and return what one call takes on average."""
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() < start + seconds:
        function()
        calls += 1
    return 1e6 * (time.perf_counter() - start) / calls


def ratio(value, to):
    """Return `value` / `to`, or None where one of them was not measured."""
    return value / to if value is not None and to else None
