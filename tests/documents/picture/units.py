"""Numbers with their units, and the ticks of an axis."""

import math

_TIMES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def shown(value: float, unit: str) -> str:
    """Return a number as a reader of Grafana expects its unit."""
    if unit == "percentunit":
        return f"{_digits(value * 100)}%"
    if unit == "reqps":
        return f"{_digits(value)} req/s"
    scale = {"s": _TIMES, "bytes": _BYTES}.get(unit)
    if scale is None or value == 0:
        return _digits(value)
    size, name = next((each for each in scale if abs(value) >= each[0]), scale[-1])
    return f"{_digits(value / size)} {name}"


def ticks(highest: float, unit: str = "short") -> list[float]:
    """Return a few round values of a unit, from 0 to the first that is not below the highest."""
    highest = highest or 1
    size = next((size for size, _ in _TIMES if size <= highest), 1) if unit == "s" else 1
    rough = highest / size / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999) * size
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)]


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
