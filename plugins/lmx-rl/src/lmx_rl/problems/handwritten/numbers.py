"""Problems of numbers."""

from typing import Any


def change(amount: int, coins: list[int]) -> int:
    """Return the smallest number of coins that make up the amount, or -1 if none do.

    There is no end of coins of each value; the amount is not negative.
    >>> change(11, [1, 2, 5])
    3
    >>> change(3, [2])
    -1
    """
    fewest = [0] + [amount + 1] * amount
    for part in range(1, amount + 1):
        for coin in coins:
            if coin <= part:
                fewest[part] = min(fewest[part], fewest[part - coin] + 1)
    return fewest[amount] if fewest[amount] <= amount else -1


def leap_years(first: int, last: int) -> int:
    """Return how many leap years there are from the first year to the last, both included.

    A year is a leap year if 4 divides it, but not if 100 does, unless 400 does too.
    >>> leap_years(1999, 2004)
    2
    >>> leap_years(1900, 1900)
    0
    """

    def before(year: int) -> int:
        return year // 4 - year // 100 + year // 400

    return before(last) - before(first - 1)


def nearest_square(n: int) -> int:
    """Return the square of a whole number that is nearest to n, which is at least 0.

    >>> nearest_square(11)
    9
    >>> nearest_square(13)
    16
    """
    root = 0
    while (root + 1) ** 2 <= n:
        root += 1
    low, high = root**2, (root + 1) ** 2
    return low if n - low < high - n else high


def factorial_zeros(n: int) -> int:
    """Return with how many zeros the product of the numbers from 1 to n ends.

    >>> factorial_zeros(5)
    1
    >>> factorial_zeros(26)
    6
    """
    count = 0
    while n:
        n //= 5
        count += n
    return count


def triangle(a: int, b: int, c: int) -> str:
    """Return what a triangle with sides of these lengths is.

    "none" if there is no such triangle or it has no area, "equilateral" if all sides are equal, "isosceles" if two are,
    else "scalene".
    >>> triangle(3, 4, 5)
    'scalene'
    >>> triangle(1, 2, 3)
    'none'
    """
    short, middle, long = sorted([a, b, c])
    if short <= 0 or short + middle <= long:
        return "none"
    return {1: "equilateral", 2: "isosceles", 3: "scalene"}[len({a, b, c})]


def trimmed_mean(values: list[float]) -> float:
    """Return the mean of the values without the smallest one and the largest one, of which there is one each.

    There are at least three values.
    >>> trimmed_mean([1.0, 9.0, 3.0])
    3.0
    >>> trimmed_mean([2.0, 2.0, 4.0, 2.0])
    2.0
    """
    kept = sorted(values)[1:-1]
    return sum(kept) / len(kept)


def happy(n: int) -> bool:
    """Return whether n becomes 1 when it is replaced again and again by the sum of the squares of its digits.

    >>> happy(19)
    True
    >>> happy(4)
    False
    """
    seen = set()
    while n != 1 and n not in seen:
        seen.add(n)
        n = sum(int(digit) ** 2 for digit in str(n))
    return n == 1


CASES: dict[str, tuple[int, list[tuple[tuple[Any, ...], Any]]]] = {
    "change": (
        3,
        [
            ((0, [2, 3]), 0),
            ((6, [1, 3, 4]), 2),
            ((7, [2, 4]), -1),
            ((27, [5, 9]), 3),
            ((1, [1]), 1),
            ((2, [5]), -1),
            ((63, [1, 5, 10, 21, 25]), 3),
        ],
    ),
    "leap_years": (
        1,
        [
            ((2000, 2000), 1),
            ((2001, 2003), 0),
            ((1896, 1904), 2),
            ((1600, 2000), 98),
            ((2096, 2104), 2),
            ((2004, 2008), 2),
        ],
    ),
    "nearest_square": (
        1,
        [
            ((0,), 0),
            ((1,), 1),
            ((2,), 1),
            ((3,), 4),
            ((6,), 4),
            ((7,), 9),
            ((12,), 9),
            ((100,), 100),
            ((110,), 100),
            ((111,), 121),
        ],
    ),
    "factorial_zeros": (
        2,
        [((0,), 0), ((4,), 0), ((9,), 1), ((10,), 2), ((24,), 4), ((25,), 6), ((125,), 31), ((1000,), 249)],
    ),
    "triangle": (
        1,
        [
            ((2, 2, 2), "equilateral"),
            ((2, 2, 3), "isosceles"),
            ((3, 2, 2), "isosceles"),
            ((5, 12, 13), "scalene"),
            ((2, 2, 4), "none"),
            ((1, 1, 5), "none"),
            ((0, 0, 0), "none"),
            ((7, 3, 5), "scalene"),
        ],
    ),
    "trimmed_mean": (
        1,
        [
            (([5.0, 5.0, 5.0],), 5.0),
            (([-1.0, 0.5, 100.0],), 0.5),
            (([4.0, 1.0, 2.0, 3.0],), 2.5),
            (([10.0, 0.0, 10.0, 0.0],), 5.0),
            (([8.0, 1.0, 1.0, 1.0, 3.0, 4.0],), 2.25),
        ],
    ),
    "happy": (
        2,
        [
            ((1,), True),
            ((2,), False),
            ((7,), True),
            ((10,), True),
            ((20,), False),
            ((23,), True),
            ((100,), True),
            ((116,), False),
        ],
    ),
}
