"""The scaling laws give the numbers of their papers, and the best division of a budget is the best."""

import json

import pytest
from click.testing import CliRunner

from lmx_core.chinchilla import BESIROGLU, HOFFMANN
from lmx_core.cli import lmx


@pytest.mark.parametrize(
    ("law", "losses", "optima"),
    [
        (
            HOFFMANN,
            {(1e6, 2e7): 9.105236729483673, (7e10, 1.4e12): 1.9366454705587173},
            {1e17: (28485579.016556468, 585091377.5345618), 5.76e23: (32189859151.368168, 2982305686662.796)},
        ),
        (
            BESIROGLU,
            {(1e6, 2e7): 10.215317114691462, (7e10, 1.4e12): 1.9738818631585637},
            {1e17: (24737490.158821672, 673741214.6366504), 5.76e23: (72248702500.38242, 1328743585388.1548)},
        ),
    ],
    ids=["hoffmann", "besiroglu"],
)
def test_reference_numbers(law, losses, optima):
    for (parameters, tokens), loss in losses.items():
        assert law.loss(parameters, tokens) == pytest.approx(loss, rel=1e-9)
    for flops, (parameters, tokens) in optima.items():
        assert law.optimal(flops) == pytest.approx((parameters, tokens), rel=1e-9)


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU], ids=["hoffmann", "besiroglu"])
def test_no_other_division_of_a_budget_is_better(law):
    parameters, tokens = law.optimal(1e20)
    best = law.loss(parameters, tokens)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(parameters * factor, tokens / factor) > best


def test_the_command_says_it():
    done = CliRunner().invoke(lmx, ["scale", "1e19", "--json"], catch_exceptions=False)
    rows = json.loads(done.stdout)
    assert [row["fit"] for row in rows] == ["arXiv:2404.10102", "arXiv:2203.15556"]
    assert (rows[0]["parameters"], rows[0]["tokens"]) == pytest.approx(BESIROGLU.optimal(1e19))
    shown = CliRunner().invoke(lmx, ["scale", "1e19"], catch_exceptions=False).stdout
    assert "262 million" in shown
    for wrong in ("0", "-1", "nan", "lots"):
        assert CliRunner().invoke(lmx, ["scale", "--", wrong]).exit_code != 0
