"""Problems of lists of whole numbers."""

from random import Random

from lmx_rl.problems.kinds.draft import Draft, kind, list_of, numbers


@kind("lists.sums")
def sums(draw: Random, level: int) -> Draft:
    c = draw.randint(1, 9)
    signature, says, body = [
        ("total(xs: list[int]) -> int", f"Return the sum of the numbers, plus {c}.", f"return sum(xs) + {c}"),
        (
            "total_above(xs: list[int]) -> int",
            f"Return the sum of the numbers that are larger than {c}.",
            f"return sum(x for x in xs if x > {c})",
        ),
        (
            "total_products(xs: list[int]) -> int",
            f"Return the sum of the products of each number and the one after it, plus {c}.",
            f"return sum(x * y for x, y in zip(xs, xs[1:])) + {c}",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(-10, 20), [([],), ([c],), ([c, c + 1],)])


@kind("lists.extremes")
def extremes(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 9)
    signature, says, body = [
        (
            "spread(xs: list[int]) -> int",
            f"Return {c} times the largest number less the smallest.",
            f"return {c} * max(xs) - min(xs)",
        ),
        (
            "second(xs: list[int]) -> int",
            f"Return the largest number that is smaller than the largest of all; {c} where all are equal.",
            f"return max([x for x in xs if x < max(xs)], default={c})",
        ),
        (
            "place_of_largest(xs: list[int]) -> int",
            f"Return the last place, counted from 0, of a number that no other exceeds by more than {c}.",
            f"return max(i for i, x in enumerate(xs) if x >= max(xs) - {c})",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(-10, 20), [([c],), ([3, 3],), ([1, 5, 5, 2],)])


@kind("lists.selection")
def selection(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 8)
    signature, says, body = [
        (
            "larger(xs: list[int]) -> list[int]",
            f"Return the numbers that are at least {c}.",
            f"return [x for x in xs if x >= {c}]",
        ),
        (
            "places(xs: list[int]) -> list[int]",
            f"Return the places, counted from 0, of the numbers that are smaller than {c}.",
            f"return [i for i, x in enumerate(xs) if x < {c}]",
        ),
        (
            "records(xs: list[int]) -> list[int]",
            f"Return the numbers that are larger than {c} and larger than all before them.",
            f"found, best = [], {c}\nfor x in xs:\n    if x > best:\n        best = x\n        found.append(x)\nreturn found",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(-5, 15), [([],), ([c],), ([c, c + 1, c + 1, c - 1],)])


@kind("lists.mapping")
def mapping(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 9)
    signature, says, body = [
        ("changed(xs: list[int]) -> list[int]", f"Return each number less {c}.", f"return [x - {c} for x in xs]"),
        (
            "odd_squares(xs: list[int]) -> list[int]",
            f"Return the squares of the odd numbers, and the even numbers plus {c}.",
            f"return [x * x if x % 2 else x + {c} for x in xs]",
        ),
        (
            "running(xs: list[int]) -> list[int]",
            f"Return for each number the sum of it and of all before it, starting from {c}.",
            f"found, total = [], {c}\nfor x in xs:\n    total += x\n    found.append(total)\nreturn found",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(-9, 9), [([],), ([0],), ([1, 2],)])


@kind("lists.rotation")
def rotation(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 4)
    signature, says, body = [
        (
            "moved(xs: list[int]) -> list[int]",
            f"Return the list with its first {c} numbers at the end.",
            f"return xs[{c}:] + xs[:{c}]",
        ),
        (
            "rotated(xs: list[int], k: int) -> list[int]",
            f"Move the first number to the end, k + {c} times, and return the list.",
            f"for _ in range(k + {c}):\n    xs = xs[1:] + xs[:1]\nreturn xs",
        ),
        (
            "halves(xs: list[int], k: int) -> list[int]",
            f"Cut the list before place k, counted from 0. Return the numbers from there on backwards, then {c}, then those "
            "before it backwards.",
            f"return xs[k:][::-1] + [{c}] + xs[:k][::-1]",
        ),
    ][level - 1]
    if level == 1:
        return Draft(signature, says, body, list_of(0, 20), [([],), ([7],), ([1, 2, 3, 4, 5],)])

    def arguments(draw: Random) -> tuple[list[int], int]:
        return numbers(draw, 0, 20), draw.randint(0, 5)

    return Draft(signature, says, body, arguments, [([], 1), ([7], 0), ([1, 2, 3], 1)])


@kind("lists.distinct")
def distinct(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 6)
    signature, says, body = [
        (
            "without_repeats(xs: list[int]) -> list[int]",
            f"Return each number once, in the order in which they come first, and {c} at the end.",
            f"return [*dict.fromkeys(xs), {c}]",
        ),
        (
            "singles(xs: list[int]) -> list[int]",
            f"Return the numbers that occur once, or that are {c}, in their order.",
            f"return [x for x in xs if xs.count(x) == 1 or x == {c}]",
        ),
        (
            "commonest(xs: list[int]) -> int",
            f"Return the number that occurs most often, the smallest of several such; {c} for an empty list.",
            f"return min(xs, key=lambda x: (-xs.count(x), x), default={c})",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(0, 6, 9), [([],), ([c],), ([c, c],), ([5, 1, 5, 1],)])


@kind("lists.pairs")
def pairs(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 9)
    signature, says, body = [
        (
            "added(xs: list[int], ys: list[int]) -> list[int]",
            f"Return the sums of the numbers at the same places, each plus {c}; the rest of a longer list is left out.",
            f"return [x + y + {c} for x, y in zip(xs, ys)]",
        ),
        (
            "interleaved(xs: list[int], ys: list[int]) -> list[int]",
            f"Return a number of xs less {c}, one of ys, the next of xs less {c}, and so on, until one list ends.",
            f"return [z for x, y in zip(xs, ys) for z in (x - {c}, y)]",
        ),
        (
            "pairs_with_sum(xs: list[int], ys: list[int]) -> int",
            f"Return how many pairs of a number of xs and one of ys have a sum of at least {c}.",
            f"return sum(x + y >= {c} for x in xs for y in ys)",
        ),
    ][level - 1]

    def arguments(draw: Random) -> tuple[list[int], list[int]]:
        return numbers(draw, -5, 9, 5), numbers(draw, -5, 9, 5)

    return Draft(signature, says, body, arguments, [([], [1]), ([1], []), ([1, c], [c - 1, 0, 3])])


@kind("lists.sorting")
def sorting(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 5)
    signature, says, body = [
        (
            "largest_first(xs: list[int]) -> list[int]",
            f"Return the numbers in order, the largest first, without the {c} largest.",
            f"return sorted(xs, reverse=True)[{c}:]",
        ),
        (
            "nearest_first(xs: list[int]) -> list[int]",
            f"Return the numbers by their distance to {c}, the nearest first, and of two as near the smaller one.",
            f"return sorted(xs, key=lambda x: (abs(x - {c}), x))",
        ),
        (
            "by_rest(xs: list[int]) -> list[int]",
            f"Return the numbers by the rest that a division by {c} leaves, and those with one rest from the largest on.",
            f"return sorted(xs, key=lambda x: (x % {c}, -x))",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(0, 15, 8), [([],), ([c],), ([c - 1, c + 1, 2 * c],)])


@kind("lists.chunks")
def chunks(draw: Random, level: int) -> Draft:
    c = draw.randint(2, 4)
    signature, says, body = [
        (
            "every(xs: list[int]) -> list[int]",
            f"Return the first of each {c} numbers, from the left; the last few may be fewer.",
            f"return xs[::{c}]",
        ),
        (
            "cut(xs: list[int]) -> list[list[int]]",
            f"Return the list cut into lists of {c} numbers; the last one may be shorter.",
            f"return [xs[i : i + {c}] for i in range(0, len(xs), {c})]",
        ),
        (
            "window_sums(xs: list[int]) -> list[int]",
            f"Return the sums of each {c} neighbours, from the first on; none where the list is shorter.",
            f"return [sum(xs[i : i + {c}]) for i in range(len(xs) - {c} + 1)]",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(-9, 20, 9), [([],), ([5],), ([1, 2, 3, 4, 5, 6],)])


@kind("lists.search")
def search(draw: Random, level: int) -> Draft:
    c = draw.randint(3, 8)
    signature, says, body = [
        (
            "occurrences(xs: list[int]) -> int",
            f"Return how many of the numbers are {c} or {c + 1}.",
            f"return xs.count({c}) + xs.count({c + 1})",
        ),
        (
            "first_place(xs: list[int]) -> int",
            f"Return the place, counted from 0, of the first number above {c}; -1 where there is none.",
            f"for i, x in enumerate(xs):\n    if x > {c}:\n        return i\nreturn -1",
        ),
        (
            "longest_rise(xs: list[int]) -> int",
            f"Return the length of the longest stretch in which each number is larger than the one before it but by no more "
            f"than {c}; 0 for an empty list.",
            "best = length = 0\nfor i, x in enumerate(xs):\n"
            f"    length = length + 1 if i and 0 < x - xs[i - 1] <= {c} else 1\n    best = max(best, length)\nreturn best",
        ),
    ][level - 1]
    return Draft(signature, says, body, list_of(0, 12, 9), [([],), ([c],), ([c + 1, c, c + 1],)])
