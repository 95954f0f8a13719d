"""Problems of whole numbers."""

from random import Random

from lmx_rl.problems.kinds.draft import Draft, integers, kind


@kind("arithmetic.polynomial")
def polynomial(draw: Random, level: int) -> Draft:
    a, b, c = draw.randint(2, 9), draw.randint(2, 9), draw.randint(2, 20)
    name = draw.choice(["value", "compute", "apply", "formula"])
    says, body = [
        (f"Return x plus {c}.", f"return x + {c}"),
        (f"Return {a} times x, minus {c}.", f"return {a} * x - {c}"),
        (f"Return {a} times the square of x, plus {b} times x, plus {c}.", f"return {a} * x * x + {b} * x + {c}"),
    ][level - 1]
    return Draft(f"{name}(x: int) -> int", says, body, integers(-20, 20), [(0,), (1,)])


@kind("arithmetic.two_numbers")
def two_numbers(draw: Random, level: int) -> Draft:
    p, q = draw.randint(2, 9), draw.randint(2, 9)
    sign, called = draw.choice([("+", "the sum of a and b"), ("-", "a minus b"), ("*", "the product of a and b")])
    says, body = [
        (f"Return {called}.", f"return a {sign} b"),
        (f"Return {p} times a plus {q} times b.", f"return {p} * a + {q} * b"),
        (
            f"Return {p} times the distance between a and b, plus the smaller of the two.",
            f"return {p} * abs(a - b) + min(a, b)",
        ),
    ][level - 1]
    name = draw.choice(["combine", "mix", "join_numbers", "of_two"])
    return Draft(f"{name}(a: int, b: int) -> int", says, body, integers(-20, 20, 2), [(0, 0), (7, 3), (3, 7)])


@kind("arithmetic.division")
def division(draw: Random, level: int) -> Draft:
    n = draw.randint(3, 12)
    signature, says, body = [
        ("whole_parts(x: int) -> int", f"Return how many times {n} fits into x as a whole.", f"return x // {n}"),
        (
            "parts_and_rest(x: int) -> tuple[int, int]",
            f"Return how many times {n} fits into x as a whole, and what is left.",
            f"return x // {n}, x % {n}",
        ),
        (
            "split_time(x: int) -> tuple[int, int, int]",
            f"On a clock with {n} seconds a minute and {n + 2} minutes an hour, return x seconds as hours, minutes and "
            "seconds.",
            f"minutes, seconds = divmod(x, {n})\nhours, minutes = divmod(minutes, {n + 2})\nreturn hours, minutes, seconds",
        ),
    ][level - 1]
    return Draft(signature, says, body, integers(0, 500), [(0,), (n,), (n - 1,)])


@kind("arithmetic.digits")
def digits(draw: Random, level: int) -> Draft:
    d = draw.randint(2, 9)
    signature, says, body = [
        (
            "digit_sum(n: int) -> int",
            f"Return the sum of the decimal digits of n, plus {d}.",
            f"return sum(int(c) for c in str(n)) + {d}",
        ),
        (
            "count_digit(n: int) -> int",
            f"Return how many of the decimal digits of n are at least {d}.",
            f"return sum(int(c) >= {d} for c in str(n))",
        ),
        (
            "reduce_digits(n: int) -> int",
            f"While n has more than one digit, replace it by the sum of its digits. Return what is left, times {d}.",
            f"while n > 9:\n    n = sum(int(c) for c in str(n))\nreturn n * {d}",
        ),
    ][level - 1]
    return Draft(signature, says, body, integers(0, 99_999), [(0,), (9,), (10,), (999,)])


@kind("arithmetic.divisors")
def divisors(draw: Random, level: int) -> Draft:
    d = draw.randint(2, 4)
    signature, says, body = [
        ("divides(n: int) -> bool", f"Return whether n is a multiple of {d}.", f"return n % {d} == 0"),
        (
            "count_divisors(n: int) -> int",
            f"Return how many of the numbers from {d} to n divide n without a rest.",
            f"return sum(n % i == 0 for i in range({d}, n + 1))",
        ),
        (
            "largest_prime_factor(n: int) -> int",
            f"Return the largest prime factor of n, which is at least 2, plus {d}.",
            f"p = 2\nwhile p * p <= n:\n    if n % p:\n        p += 1\n    else:\n        n //= p\nreturn n + {d}",
        ),
    ][level - 1]
    return Draft(signature, says, body, integers(2, 120), [(2,), (4,), (97,), (64,)])


@kind("arithmetic.bounds")
def bounds(draw: Random, level: int) -> Draft:
    low = draw.randint(-5, 5)
    high = low + draw.randint(5, 12)
    signature, says, body = [
        ("at_least(x: int) -> int", f"Return x, but {low} where x is smaller than that.", f"return max(x, {low})"),
        (
            "clamp(x: int) -> int",
            f"Return x, but {low} where it is smaller than that and {high} where it is larger than that.",
            f"return min(max(x, {low}), {high})",
        ),
        (
            "outside(x: int) -> int",
            f"Return how far x is from the numbers from {low} to {high}: 0 for one of these.",
            f"return max({low} - x, x - {high}, 0)",
        ),
    ][level - 1]
    return Draft(signature, says, body, integers(-25, 25), [(low,), (high,), (low - 1,), (high + 1,)])


@kind("arithmetic.series")
def series(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 6)
    signature, says, body = [
        (
            "sum_up_to(n: int) -> int",
            f"Return the sum of the whole numbers from {c} to n, n included; 0 if there is none.",
            f"return sum(range({c}, n + 1))",
        ),
        (
            "sum_of_multiples(n: int) -> int",
            f"Return the sum of the positive multiples of {c} that are smaller than n.",
            f"return sum(range({c}, n, {c}))",
        ),
        (
            "sum_of_squares(n: int) -> int",
            f"Return the sum of the squares of the odd numbers from 1 to n that are no multiples of {2 * c - 1}.",
            f"return sum(i * i for i in range(1, n + 1, 2) if i % {2 * c - 1})",
        ),
    ][level - 1]
    return Draft(signature, says, body, integers(0, 40), [(0,), (1,), (c,), (c + 1,), (3 * c,)])


@kind("arithmetic.repetition")
def repetition(draw: Random, level: int) -> Draft:
    a, b = draw.randint(1, 5), draw.randint(2, 6)
    signature, says, body = [
        ("doubled(n: int) -> int", f"Start with {a} and double it n times. Return the result.", f"return {a} * 2**n"),
        (
            "sequence(n: int) -> int",
            f"A sequence begins with {a} and {b}; each further number is the sum of the two before it. Return number n, "
            "counted from 0.",
            f"x, y = {a}, {b}\nfor _ in range(n):\n    x, y = y, x + y\nreturn x",
        ),
        (
            "steps(n: int) -> int",
            f"Start with n + {a}. Halve an even number, and replace an odd one by three times itself plus one. Return how "
            "many steps it takes to reach 1.",
            f"n += {a}\ncount = 0\nwhile n != 1:\n    n = n // 2 if n % 2 == 0 else 3 * n + 1\n    count += 1\nreturn count",
        ),
    ][level - 1]
    return Draft(signature, says, body, integers(0, 20), [(0,), (1,), (2,)])


@kind("arithmetic.parity")
def parity(draw: Random, level: int) -> Draft:
    c = draw.randint(1, 9)
    which, rest = draw.choice([("even", 0), ("odd", 1)])
    signature, says, body = [
        ("is_so(n: int) -> bool", f"Return whether n plus {c} is {which}.", f"return (n + {c}) % 2 == {rest}"),
        (
            "count_between(a: int, b: int) -> int",
            f"Return how many {which} numbers there are from a to b, both included.",
            f"return sum(i % 2 == {rest} for i in range(a, b + 1))",
        ),
        (
            "alternate(n: int) -> int",
            f"Return {c} - {c + 1} + {c + 2} - {c + 3} and so on, of n numbers; 0 if n is 0.",
            f"return sum(({c} + i) * (-1) ** i for i in range(n))",
        ),
    ][level - 1]
    if level == 2:
        return Draft(signature, says, body, integers(-10, 15, 2), [(2, 2), (3, 3), (4, 1)])
    return Draft(signature, says, body, integers(0, 40), [(0,), (1,)])


@kind("arithmetic.bases")
def bases(draw: Random, level: int) -> Draft:
    base = draw.randint(3, 9)
    signature, says, body = [
        (
            "to_binary(n: int) -> str",
            f"Return n in binary digits, with at least {base} of them: put zeros in front.",
            f'return format(n, "b").zfill({base})',
        ),
        (
            "ones(n: int) -> int",
            f"Return how many ones the binary digits of n times {base} have.",
            f'return format(n * {base}, "b").count("1")',
        ),
        (
            "in_base(n: int) -> str",
            f'Return n written in base {base}; "0" for 0.',
            f'text = ""\nwhile n:\n    n, rest = divmod(n, {base})\n    text = str(rest) + text\nreturn text or "0"',
        ),
    ][level - 1]
    return Draft(signature, says, body, integers(0, 200), [(0,), (1,), (base,), (base * base - 1,)])
